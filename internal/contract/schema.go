// Package contract evaluates outcome contracts: whether the result and the changes of an execution
// are what its trigger expects.
package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/agented/agented"
)

// Limits of schemas and of the values that are validated. Both can be hostile: a value comes from an
// agent.
const (
	maxDepth   = 128
	maxNumber  = 400 // digits and exponent of a number
	maxSteps   = 1_000_000
	maxTime    = 10 * time.Second
	maxErrors  = 10 // that are listed
	schemaName = "schema:///result_schema"
	budgetName = "budget:///steps"
)

// Schema is a compiled JSON Schema. It is not safe for concurrent use.
type Schema struct {
	schema *jsonschema.Schema
	budget *budget
}

// Compile compiles a schema. It fetches nothing: a schema that refers to another document, except
// to the meta-schemas of JSON Schema, is rejected. Its errors are for users.
func Compile(text []byte) (*Schema, error) {
	if len(text) > agented.MaxResultSchema {
		return nil, fmt.Errorf("is too long: use at most %d bytes", agented.MaxResultSchema)
	}
	doc, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("is not valid: %w", err)
	}
	b := new(budget)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	c.AssertFormat()
	c.RegisterVocabulary(&jsonschema.Vocabulary{URL: budgetName, Compile: func(*jsonschema.CompilerContext, map[string]any) (jsonschema.SchemaExt, error) {
		return b, nil
	}})
	c.AssertVocabs()
	if err := c.AddResource(schemaName, doc); err != nil {
		return nil, errors.New("is not a JSON Schema")
	}
	b.start()
	s, err := b.guard(func() (*jsonschema.Schema, error) { return c.Compile(schemaName) })
	if err != nil {
		return nil, errors.New(compileText(err))
	}
	return &Schema{s, b}, nil
}

// compileText describes why a schema cannot be compiled.
func compileText(err error) string {
	if load, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		return fmt.Sprintf("refers to %q, and other documents are not fetched: copy it into $defs", clip(load.URL, 200))
	}
	if bad, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if list := causes(bad.Err); len(list) > 0 {
			return "is not a JSON Schema: " + list[0]
		}
	}
	text := strings.ReplaceAll(err.Error(), schemaName, "")
	return "is not a JSON Schema: " + clip(strings.Join(strings.Fields(text), " "), 300)
}

// noLoader rejects every document.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) { return nil, errors.New("not fetched") }

// Validate returns what a value violates, at most maxErrors entries; nil if it is valid.
func (s *Schema) Validate(v any) []string {
	s.budget.start()
	_, err := s.budget.guard(func() (*jsonschema.Schema, error) { return nil, s.schema.Validate(v) })
	if err == nil {
		return nil
	}
	if list := causes(err); len(list) > 0 {
		return list
	}
	return []string{clip(err.Error(), 300)}
}

// causes lists the innermost violations.
func causes(err error) []string {
	top, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return nil
	}
	var out []string
	p := message.NewPrinter(language.English)
	var walk func(e *jsonschema.ValidationError, depth int)
	walk = func(e *jsonschema.ValidationError, depth int) {
		if len(out) > maxErrors || depth > maxDepth {
			return
		}
		if len(e.Causes) == 0 {
			out = append(out, "at "+strconv.Quote("/"+clip(strings.Join(e.InstanceLocation, "/"), 200))+": "+clip(e.ErrorKind.LocalizedString(p), 300))
		}
		for _, c := range e.Causes {
			walk(c, depth+1)
		}
	}
	walk(top, 0)
	if len(out) > maxErrors {
		out = append(out[:maxErrors], "and more")
	}
	return out
}

// budget limits the steps and the time of one validation. The library has no such limit, and a
// schema with nested references can take exponential time. As an extension of the schema language
// it is called at every subschema.
type budget struct {
	steps int
	until time.Time
}

// errTooComplex ends a validation.
var errTooComplex = errors.New("the validation takes too long: simplify the schema")

func (b *budget) start() { b.steps, b.until = 0, time.Now().Add(maxTime) }

// Validate implements [jsonschema.SchemaExt].
func (b *budget) Validate(*jsonschema.ValidatorContext, any) {
	b.steps++
	if b.steps > maxSteps || b.steps%64 == 0 && time.Now().After(b.until) {
		panic(errTooComplex)
	}
}

// guard converts the panic of Validate into an error.
func (b *budget) guard(f func() (*jsonschema.Schema, error)) (s *jsonschema.Schema, err error) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case errTooComplex:
			s, err = nil, errTooComplex
		default:
			panic(r)
		}
	}()
	return f()
}

// decode decodes one JSON value for the validator. It rejects values whose depth or numbers would
// make the validation expensive.
func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.New("the JSON ends too early")
		}
		return nil, fmt.Errorf("it is not JSON: %s", clip(err.Error(), 200))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is text after the JSON value")
	}
	return v, check(v, 0)
}

func check(v any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("it is nested deeper than %d levels", maxDepth)
	}
	switch v := v.(type) {
	case json.Number:
		s := v.String()
		if i := strings.IndexAny(s, "eE"); i >= 0 {
			if n, err := strconv.Atoi(s[i+1:]); err != nil || n > maxNumber || n < -maxNumber {
				return fmt.Errorf("the number %s is out of range", clip(s, 40))
			}
		}
		if len(s) > maxNumber {
			return fmt.Errorf("a number has more than %d digits", maxNumber)
		}
	case []any:
		for _, x := range v {
			if err := check(x, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, x := range v {
			if err := check(x, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
