package client_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/agented/agented/internal/client"
)

// schema is the part of a JSON schema that the test reads.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       any                `json:"type"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	Any        []*schema          `json:"anyOf"`
	One        []*schema          `json:"oneOf"`
	All        []*schema          `json:"allOf"`
	More       any                `json:"additionalProperties"`
}

type content map[string]struct{ Schema *schema }

type operation struct {
	Parameters  []struct{ Name, In string }
	RequestBody struct{ Content content }
	Responses   map[string]struct{ Content content }
}

type document struct {
	Paths      map[string]map[string]*operation
	Components struct{ Schemas map[string]*schema }
}

// resolve follows references, and the only variant that is not null.
func (d *document) resolve(s *schema) *schema {
	for s != nil {
		switch {
		case s.Ref != "":
			s = d.Components.Schemas[s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]]
			continue
		case len(s.Properties) == 0:
			for _, v := range slices.Concat(s.Any, s.One, s.All) {
				if v = d.resolve(v); v != nil && len(v.Properties) > 0 {
					return v
				}
			}
		}
		return s
	}
	return nil
}

// find returns the operation of a request.
func (d *document) find(method, path string) *operation {
	for template, methods := range d.Paths {
		pattern := regexp.MustCompile(`\\\{[^/]*\\\}`).ReplaceAllString(regexp.QuoteMeta(template), `[^/]+`)
		if regexp.MustCompile("^" + pattern + "$").MatchString(path) {
			if op := methods[strings.ToLower(method)]; op != nil {
				return op
			}
		}
	}
	return nil
}

// checkFields reports the fields of a Go type that a schema does not have.
func (d *document) checkFields(t *testing.T, where string, typ reflect.Type, s *schema) {
	t.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if s = d.resolve(s); s == nil {
		return
	}
	switch typ.Kind() {
	case reflect.Slice:
		if s.Items != nil {
			d.checkFields(t, where+"[]", typ.Elem(), s.Items)
		}
	case reflect.Struct:
		if len(s.Properties) == 0 || typ.PkgPath() == "time" {
			return
		}
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous:
				d.checkFields(t, where, f.Type, s)
			case s.Properties[name] == nil && where+"."+name == "ApplyAgents answer.items[].after.hints":
				// One type serves triggers and agents, and only triggers have hints.
			case s.Properties[name] == nil:
				t.Errorf("%s: the API has no field %q", where, name)
			default:
				d.checkFields(t, where+"."+name, f.Type, s.Properties[name])
			}
		}
	}
}

// checkBody reports the fields of a request that a schema does not have.
func (d *document) checkBody(t *testing.T, where string, body any, s *schema) {
	t.Helper()
	s = d.resolve(s)
	fields, ok := body.(map[string]any)
	if !ok || s == nil || len(s.Properties) == 0 {
		return
	}
	for name, v := range fields {
		if s.Properties[name] == nil {
			t.Errorf("%s: the API accepts no field %q", where, name)
			continue
		}
		d.checkBody(t, where+"."+name, v, s.Properties[name])
	}
}

// fill sets all fields of a value, so that requests contain all of them.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(`"x"`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		if elem := reflect.New(v.Type().Elem()).Elem(); elem.Kind() != reflect.Interface {
			fill(elem)
			v.SetMapIndex(reflect.ValueOf("X"), elem)
		}
	case reflect.Struct:
		if v.Type().PkgPath() == "time" {
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
}

// TestMethods_match_OpenAPI calls every method of the client and compares its path, its parameters,
// its request and the fields that it reads with the committed description of the API.
func TestMethods_match_OpenAPI(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/reference/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	var last *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusBadRequest) // ends streams as well
		_, _ = w.Write([]byte(`{"kind":"invalid","title":"x"}`))
	}))
	defer server.Close()
	c, err := client.New(server.URL, "key")
	if err != nil {
		t.Fatal(err)
	}
	of := reflect.ValueOf(c)
	called := 0
	for i := range of.NumMethod() {
		name, method := of.Type().Method(i).Name, of.Method(i)
		if slices.Contains([]string{"Do", "FollowFeed"}, name) {
			continue // they take a path
		}
		called++
		args := []reflect.Value{reflect.ValueOf(t.Context())}
		for n := 1; n < method.Type().NumIn(); n++ {
			arg := reflect.New(method.Type().In(n)).Elem()
			if arg.Type() != reflect.TypeFor[client.Follower]() {
				fill(arg)
			}
			args = append(args, arg)
		}
		last, body = nil, nil
		out := method.Call(args)
		result := out[0].Type()
		if result.Kind() == reflect.Func { // a list: request its first page
			yield := result.In(0)
			result = yield.In(0)
			out[0].Call([]reflect.Value{reflect.MakeFunc(yield, func([]reflect.Value) []reflect.Value {
				return []reflect.Value{reflect.ValueOf(false)}
			})})
		}
		if last == nil {
			t.Errorf("%s sends no request", name)
			continue
		}
		op := d.find(last.Method, last.URL.Path)
		if op == nil {
			t.Errorf("%s: the API has no %s %s", name, last.Method, last.URL.Path)
			continue
		}
		for parameter := range last.URL.Query() {
			if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.In == "query" && p.Name == parameter }) {
				t.Errorf("%s: the API has no parameter %q", name, parameter)
			}
		}
		var sent any
		if len(body) > 0 {
			if err := json.Unmarshal(body, &sent); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(op.RequestBody.Content) == 0 {
				t.Errorf("%s: the API expects no body", name)
			}
		}
		d.checkBody(t, name+" request", sent, op.RequestBody.Content["application/json"].Schema)
		if result.Kind() != reflect.Struct || !strings.HasPrefix(result.Name(), "Response[") {
			continue // only an error, or a stream
		}
		value, _ := result.FieldByName("Value")
		for status, answer := range op.Responses {
			s := d.resolve(answer.Content["application/json"].Schema)
			if !strings.HasPrefix(status, "2") || s == nil {
				continue
			}
			if items := s.Properties["items"]; items != nil && out[0].Kind() == reflect.Func {
				s = d.resolve(items).Items
			}
			d.checkFields(t, name+" answer", value.Type, s)
		}
	}
	if called < 50 {
		t.Errorf("only %d methods were called", called)
	}
}
