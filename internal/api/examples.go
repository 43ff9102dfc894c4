package api

import (
	"context"

	"github.com/agented/agented/examples"
	"github.com/agented/agented/internal/api/rest"
)

// ExampleList is the list of example triggers.
type ExampleList struct {
	Items []ExampleView `json:"items"`
}

// ExampleView is a trigger file to start from.
type ExampleView struct {
	Name    string `json:"name" doc:"Name of the example and of its trigger"`
	Summary string `json:"summary" doc:"What the trigger does, in one sentence"`
	YAML    string `json:"yaml" doc:"The trigger file. Comments at its top name what to set before use"`
}

func (h *triggers) listExamples(context.Context, *struct{}) (*rest.Output[ExampleList], error) {
	out := &rest.Output[ExampleList]{}
	for _, e := range examples.List() {
		out.Body.Items = append(out.Body.Items, ExampleView(e))
	}
	return out, nil
}
