package runlog

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollEvery is the polling interval for files whose changes the system does not
// report (too many watches, a network file system without support).
const pollEvery = 250 * time.Millisecond

// Watcher wakes its owner when a file grows. A wake-up may stand for several
// changes, or for none: read the file to find out.
type Watcher struct {
	c    chan struct{} // capacity 1: a pending wake-up stands for all later ones
	dir  string
	name string
	stop chan struct{} // ends polling; nil if not polling
	done chan struct{} // polling has ended
	once sync.Once
}

// Watch watches the log in an execution's folder: its creation, every append,
// and its removal by a seal. The folder must exist. Watch before reading, so
// that no change is missed; the first wake-up is immediate.
func Watch(dir string) (*Watcher, error) {
	return WatchFile(filepath.Join(dir, logName))
}

// WatchFile is Watch for any one file. Its folder must exist; the file need not
// exist.
func WatchFile(path string) (*Watcher, error) {
	return watchFile(path, shared.add)
}

func watchFile(path string, add func(*Watcher) error) (*Watcher, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	w := &Watcher{c: make(chan struct{}, 1), dir: filepath.Dir(path), name: filepath.Base(path)}
	if _, err := os.Stat(w.dir); err != nil {
		return nil, err
	}
	w.wake()
	if add(w) != nil {
		w.poll()
	}
	return w, nil
}

// C returns the channel of wake-ups. It is never closed.
func (w *Watcher) C() <-chan struct{} { return w.c }

// Close stops watching. It may be called more than once.
func (w *Watcher) Close() error {
	w.once.Do(func() {
		if w.stop != nil {
			close(w.stop)
			<-w.done
			return
		}
		shared.remove(w)
	})
	return nil
}

func (w *Watcher) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// poll checks the file periodically until Close.
func (w *Watcher) poll() {
	w.stop, w.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(w.done)
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		var size int64 = -1
		var changed time.Time
		for {
			now, at := int64(-1), time.Time{}
			if st, err := os.Stat(filepath.Join(w.dir, w.name)); err == nil {
				now, at = st.Size(), st.ModTime()
			}
			if now != size || !at.Equal(changed) {
				size, changed = now, at
				w.wake()
			}
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
		}
	}()
}

// watches is the single fsnotify instance of the process. One per watcher would
// exceed the limit of instances (128 by default) long before that of watches.
// It exists only while something is watched.
type watches struct {
	mu   sync.Mutex // guards the fields below
	w    *fsnotify.Watcher
	dirs map[string]map[*Watcher]struct{}
}

var shared watches

func (s *watches) add(w *Watcher) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		n, err := fsnotify.NewWatcher()
		if err != nil {
			return err
		}
		s.w, s.dirs = n, map[string]map[*Watcher]struct{}{}
		go s.deliver(n)
	}
	if s.dirs[w.dir] == nil {
		if err := s.w.Add(w.dir); err != nil {
			s.closeIfIdle()
			return err
		}
		s.dirs[w.dir] = map[*Watcher]struct{}{}
	}
	s.dirs[w.dir][w] = struct{}{}
	return nil
}

func (s *watches) remove(w *Watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dirs[w.dir], w)
	if len(s.dirs[w.dir]) > 0 {
		return
	}
	delete(s.dirs, w.dir)
	_ = s.w.Remove(w.dir) // already removed if the folder was deleted
	s.closeIfIdle()
}

// closeIfIdle must be called with the lock held.
func (s *watches) closeIfIdle() {
	if len(s.dirs) == 0 {
		_ = s.w.Close()
		s.w = nil
	}
}

// When files of many executions change, changes are batched for a moment: a
// wake-up for each would cost more than all the work that follows, for this
// process and for its clients.
const (
	gather = 10 * time.Millisecond
	// manyFolders is how many changes in a window must be in another folder than the
	// previous change to start batching.
	manyFolders = 20
	window      = 100 * time.Millisecond
)

// batching decides when to batch changes.
type batching struct {
	dir     string    // folder of the last change
	began   time.Time // start of the window
	turns   int       // changes of folder in the window
	many    bool      // there were many in the previous window
	passing time.Time // end of passing on batched changes
}

// pause returns how long to batch before a change is passed on.
func (g *batching) pause(dir string, now time.Time) time.Duration {
	if now.Sub(g.began) > window {
		g.many = g.turns >= manyFolders && now.Sub(g.began) < 2*window
		g.began, g.turns = now, 0
	}
	if dir != g.dir {
		g.dir = dir
		g.turns++
	}
	if !g.many || now.Before(g.passing) {
		return 0
	}
	g.passing = now.Add(gather + gather/5)
	return gather
}

// deliver passes events on until the instance is closed. Each select only
// receives what is available, so that neither channel blocks the other.
func (s *watches) deliver(n *fsnotify.Watcher) {
	var g batching
	for {
		select {
		case ev, ok := <-n.Events:
			if !ok {
				return
			}
			if ev.Op == fsnotify.Chmod {
				continue
			}
			dir := filepath.Dir(ev.Name)
			if d := g.pause(dir, time.Now()); d > 0 {
				time.Sleep(d)
			}
			s.wake(n, dir, filepath.Base(ev.Name))
		case _, ok := <-n.Errors:
			if !ok {
				return
			}
			s.wake(n, "", "") // events were lost: wake all
		}
	}
}

// wake wakes the watchers of the file, or all watchers if dir is empty.
func (s *watches) wake(n *fsnotify.Watcher, dir, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != n {
		return
	}
	if dir == "" {
		for _, ws := range s.dirs {
			for w := range ws {
				w.wake()
			}
		}
		return
	}
	for w := range s.dirs[dir] {
		if w.name == name {
			w.wake()
		}
	}
}
