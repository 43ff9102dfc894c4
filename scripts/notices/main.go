// Command notices writes THIRD_PARTY_NOTICES.md: the Go modules inside the released
// programs and the npm packages inside the web interface, with their licences.
package main

import (
	"fmt"
	"os"
)

const noticesFile = "THIRD_PARTY_NOTICES.md"

func main() {
	deps, err := collect()
	if err == nil {
		err = readLicences(deps)
	}
	if err == nil {
		err = os.WriteFile(noticesFile, []byte(render(deps)), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
	fmt.Printf("%s: %d dependencies\n", noticesFile, len(deps))
}

// collect lists the dependencies without their licences.
func collect() ([]*dependency, error) {
	modules, err := goModules()
	if err != nil {
		return nil, err
	}
	packages, err := npmPackages()
	if err != nil {
		return nil, err
	}
	return append(modules, packages...), nil
}

// readLicences reads the licence texts and fails on a licence that does not permit
// distribution with an MIT program.
func readLicences(deps []*dependency) error {
	for _, d := range deps {
		if err := d.readLicence(); err != nil {
			return err
		}
	}
	return nil
}
