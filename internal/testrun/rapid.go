package testrun

import (
	"flag"
	"strconv"
)

// Checks sets how many cases each property test checks, unless -rapid.checks
// is given. Call it in TestMain.
func Checks(normal, long int) {
	if !flag.Parsed() {
		flag.Parse()
	}
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		_ = flag.Set("rapid.checks", strconv.Itoa(Size(normal, normal, long)))
	}
}
