package trace

import (
	"strings"
	"testing"
)

func TestNew_standard_settings(t *testing.T) {
	t.Parallel()
	got, err := New(Options{
		Endpoint: "http://a.example:4318", TracesEndpoint: "http://b.example/custom/path", Protocol: "http/protobuf",
		Attributes: "deployment.environment=prod%20eu, service.name=other,team=core", Service: "agented", Version: "1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.url != "http://b.example/custom/path" {
		t.Errorf("spans go to %s", got.url)
	}
	var all []string
	for _, a := range got.resource() {
		all = append(all, a.Key+"="+a.Value.String)
	}
	if text := strings.Join(all, ","); text != "service.name=agented,service.version=1,deployment.environment=prod eu,team=core" {
		t.Errorf("attributes %s", text)
	}
	for want, o := range map[string]Options{
		"4318":                     {Endpoint: "http://a.example:4317", Protocol: "grpc"},
		"is unknown":               {Endpoint: "http://a.example:4317", Protocol: "thrift"},
		"OTEL_RESOURCE_ATTRIBUTES": {Endpoint: "http://a.example:4318", Attributes: "novalue"},
		"TRACES_ENDPOINT":          {TracesEndpoint: "collector"},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
