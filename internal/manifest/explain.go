package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/term"
)

// explain rewrites an error of the server in terms of the file: it names the object and the lines
// of the values.
func (w *Item) explain(k Kind, err error) error {
	var e *agented.Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Fields = nil
	text := e.Text
	for _, f := range e.Fields {
		// The server's error is about a request; the user wrote a file.
		said := strings.Replace(f.Text, "is not a field of this request", "is not a field of a "+string(k), 1)
		text = strings.Replace(text, f.Text, said, 1)
		out.Fields = append(out.Fields, agented.Field{Path: f.Path, Text: fmt.Sprintf("line %d: %s", w.lines.at(f.Path).Line, said)})
	}
	if len(out.Fields) == 1 {
		text = fmt.Sprintf("line %d: %s", w.lines.at(out.Fields[0].Path).Line, text)
	}
	out.Text = fmt.Sprintf("%s: %s %q: %s", w.where, k, w.name, text)
	return &out
}

// Explain groups the fields of an error by object and adds the location of each object.
func (k Kind) Explain(wanted []Item, err error) error {
	var e *agented.Error
	if !errors.As(err, &e) {
		return err
	}
	byItem := map[int]*agented.Error{}
	for _, f := range e.Fields {
		rest, ok := strings.CutPrefix(f.Path, "items.")
		number, field, _ := strings.Cut(rest, ".")
		i, convErr := strconv.Atoi(number)
		if !ok || convErr != nil || i < 0 || i >= len(wanted) {
			return err
		}
		if byItem[i] == nil {
			byItem[i] = &agented.Error{Kind: e.Kind}
		}
		if field == "" { // concerns the whole object
			byItem[i].Text = f.Text
			continue
		}
		byItem[i].Fields = append(byItem[i].Fields, agented.Field{Path: field, Text: f.Text})
	}
	if len(byItem) == 0 {
		return err
	}
	var texts []string
	for i := range wanted {
		item := byItem[i]
		if item == nil {
			continue
		}
		if item.Text == "" {
			item.Text = agented.InvalidFields(item.Fields).Error()
		}
		texts = append(texts, term.ErrorText(wanted[i].explain(k, item)))
	}
	texts = append(texts, "Nothing was changed.")
	return agented.Errorf(e.Kind, "%s", strings.Join(texts, "\n"))
}
