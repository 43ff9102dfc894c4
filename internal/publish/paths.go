package publish

import "strings"

// maxPattern is the length of the longest pattern that can be extended.
const maxPattern = 290

// forbidding converts the patterns of forbidden_paths, which are like those of .gitignore.
func forbidding(list []string) []string {
	var out []string
	for _, p := range list {
		if len(p) > maxPattern {
			return []string{"**"} // it cannot be extended, and must not match less
		}
		folder := strings.TrimSuffix(p, "/")
		if !strings.Contains(folder, "/") {
			folder = "**/" + folder
		}
		out = append(out, folder+"/**")
		if !strings.HasSuffix(p, "/") {
			out = append(out, folder)
		}
	}
	return out
}

// allowing converts the patterns of allow_paths.
func allowing(list []string) []string {
	var out []string
	for _, p := range list {
		if strings.HasSuffix(p, "/") {
			p += "**"
		}
		out = append(out, p)
	}
	return out
}
