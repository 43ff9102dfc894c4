package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/agented/agented"
)

// yamlItem is one object of a YAML file with the line numbers of its values.
type yamlItem struct {
	node     *yaml.Node
	document int // counted from 1
}

// yamlItems reads the objects of a file. Each document is one object or a list of objects.
func yamlItems(file string, b []byte) ([]yamlItem, error) {
	var out []yamlItem
	dec := yaml.NewDecoder(bytes.NewReader(b))
	for n := 1; ; n++ {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "%s", yamlMistake(file, b, err))
		}
		root := &doc
		if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
			root = root.Content[0]
		}
		if root.Kind != yaml.SequenceNode {
			out = append(out, yamlItem{root, n})
			continue
		}
		for _, item := range root.Content {
			out = append(out, yamlItem{item, n})
		}
	}
}

// at returns the node of a field such as "schedules.0.cron", or its nearest ancestor if the file
// does not have the field.
func (i yamlItem) at(path string) *yaml.Node {
	node := i.node
	for part := range strings.SplitSeq(path, ".") {
		next := child(node, part)
		if next == nil {
			break
		}
		node = next
	}
	return node
}

func child(node *yaml.Node, name string) *yaml.Node {
	for node.Kind == yaml.AliasNode && node.Alias != nil {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				return node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i]
		}
	}
	return nil
}

// textFields names the fields that hold text; lists names those that hold lists of text.
var (
	textFields = []string{"name", "backend", "agent", "prompt", "model", "permission", "working_dir", "overlap", "account", "role", "goals", "context"}
	listFields = []string{"command", "args", "paths"}
)

// mistypedValues returns an error for each value whose YAML type is wrong: a number or boolean
// where text is needed, text where a list is needed.
func (i yamlItem) mistypedValues() []agented.Field {
	var bad []agented.Field
	refuse := func(path string, node *yaml.Node, format string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf("line %d: ", node.Line) + fmt.Sprintf(format, args...)})
	}
	quoted := func(path, name string, node *yaml.Node) {
		if kind := scalarKind(node); kind != "" && kind != "empty" {
			refuse(path, node, "%s is %s, but the field needs text: put it in quotes: %s: %q", node.Value, kind, name, node.Value)
		}
	}
	for _, name := range textFields {
		if node := child(i.node, name); node != nil {
			quoted(name, name, node)
		}
	}
	for _, name := range listFields {
		node := child(i.node, name)
		switch {
		case node == nil:
		case node.Kind == yaml.ScalarNode && scalarKind(node) != "empty":
			refuse(name, node, "is text, but the field needs a list: write %s: %s", name, asList(name, node.Value))
		case node.Kind == yaml.SequenceNode:
			for n, item := range node.Content {
				if kind := scalarKind(item); kind != "" {
					refuse(fmt.Sprintf("%s.%d", name, n), item, "%s is %s, but the field needs text: put it in quotes: %q", item.Value, kind, item.Value)
				}
			}
		}
	}
	if env := child(i.node, "env"); env != nil && env.Kind == yaml.MappingNode {
		for n := 0; n+1 < len(env.Content); n += 2 {
			name, value := env.Content[n].Value, env.Content[n+1]
			quoted("env."+name, name, value)
			if long := child(value, "value"); long != nil {
				quoted("env."+name+".value", "value", long)
			}
		}
	}
	return bad
}

// asList returns a command line in the form of the list that the field needs.
func asList(name, text string) string {
	words := []string{text}
	if name == "command" {
		if words = strings.Fields(text); strings.ContainsAny(text, `|&;<>$"'*?`+"`\\(){}~") {
			words = []string{"sh", "-c", text}
		}
	}
	for i := range words {
		words[i] = strconv.Quote(words[i])
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// scalarKind names the YAML type of a scalar; it is "" for text and for other nodes.
func scalarKind(node *yaml.Node) string {
	if node.Kind != yaml.ScalarNode {
		return ""
	}
	switch node.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	case "!!null":
		return "empty"
	}
	return ""
}

var (
	yamlLine  = regexp.MustCompile(`line (\d+)(?:[:,]? column \d+)?:? *`)
	yamlValue = regexp.MustCompile(`^\s*(?:- +)?(?:([\w.-]+) *: +)?(.*?)\s*$`)
)

// yamlMistake locates a YAML syntax error and, for common mistakes, returns what to write
// instead.
func yamlMistake(file string, b []byte, err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	found := yamlLine.FindStringSubmatch(text)
	if found == nil {
		return fmt.Sprintf("%s is not valid YAML: %s", file, text)
	}
	number, _ := strconv.Atoi(found[1])
	what := strings.TrimSpace(strings.Replace(text, found[0], "", 1))
	lines := strings.Split(string(b), "\n")
	// The parser may report the line after the faulty one.
	for _, n := range []int{number, number - 1, number + 1} {
		if n < 1 || n > len(lines) {
			continue
		}
		if hint := lineMistake(lines[n-1]); hint != "" {
			return fmt.Sprintf("%s, line %d: %s", file, n, hint)
		}
	}
	return fmt.Sprintf("%s, line %d: invalid YAML (%s): check for values that need quotes, and check the indentation", file, number, what)
}

// lineMistake recognises values that need quotes, and tabs.
func lineMistake(line string) string {
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	if strings.Contains(indent, "\t") {
		return "the line is indented with a tab: use spaces, YAML does not allow tabs"
	}
	m := yamlValue.FindStringSubmatch(strings.TrimSuffix(line, "\r"))
	if m == nil || m[2] == "" {
		return ""
	}
	key, value := m[1], m[2]
	if key != "" {
		key += ": "
	}
	fixed := key + strconv.Quote(value)
	switch first := value[0]; {
	case first == '*' || first == '&' || first == '!' || first == '@' || first == '%' || first == '`':
		return fmt.Sprintf("a value that begins with %c must be in quotes: write %s", first, fixed)
	case first == '{' && !strings.HasSuffix(value, "}"), first == '[' && !strings.HasSuffix(value, "]"):
		return fmt.Sprintf("a text value that begins with %c must be in quotes: write %s", first, fixed)
	case first == '"' || first == '\'':
		return ""
	case strings.Contains(value, ": "):
		return fmt.Sprintf("a value that contains a colon followed by a space must be in quotes: write %s", fixed)
	}
	return ""
}
