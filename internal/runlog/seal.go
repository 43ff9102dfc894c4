package runlog

import "io/fs"

func openSealed(dir string) (source, error) { return nil, fs.ErrNotExist }
