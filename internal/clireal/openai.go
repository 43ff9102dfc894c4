package clireal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // marshalling cannot fail
	}
	return string(b)
}

// responses answers POST /v1/responses, always as a stream.
func (c *call) responses() {
	if status, yes := c.refuse(); yes {
		c.openAIError(status)
		return
	}
	input := list(c.in, "input")
	done, answers := false, 0
	for _, item := range input {
		switch kind := str(item, "type"); {
		case strings.HasSuffix(kind, "_call_output"):
			done, answers = true, answers+1
		case kind == "message" && str(item, "role") == "user" && c.scenario != Once:
			done = false
		}
	}
	response := object{"id": "resp_standin", "object": "response", "status": "in_progress", "model": str(c.in, "model"), "output": []any{}}
	c.event("response.created", object{"type": "response.created", "response": response})
	var item object
	if next := c.next(answers); next != nil {
		command, _ := next.Input["command"].(string)
		item = c.openAITool(command)
	} else if c.wantsTool(done) {
		item = c.openAITool(c.s.command())
	} else {
		id := "msg_standin"
		whole := ""
		c.event("response.output_item.added", object{"type": "response.output_item.added", "output_index": 0, "item": object{"id": id, "type": "message", "role": "assistant", "status": "in_progress", "content": []any{}}})
		for _, piece := range c.text(done) {
			whole += piece
			c.event("response.output_text.delta", object{"type": "response.output_text.delta", "item_id": id, "output_index": 0, "content_index": 0, "delta": piece})
			if c.stopHere() {
				return
			}
		}
		item = object{"id": id, "type": "message", "role": "assistant", "status": "completed", "content": []any{object{"type": "output_text", "text": whole, "annotations": []any{}}}}
	}
	c.event("response.output_item.done", object{"type": "response.output_item.done", "output_index": 0, "item": item})
	response["status"] = "completed"
	response["output"] = []any{item}
	response["usage"] = object{
		"input_tokens": 1000, "input_tokens_details": object{"cached_tokens": 400},
		"output_tokens": 30, "output_tokens_details": object{"reasoning_tokens": 5}, "total_tokens": 1030,
	}
	c.event("response.completed", object{"type": "response.completed", "response": response})
}

// toolPatience is how long Codex waits for a command before it lets it continue in the background,
// in milliseconds.
const toolPatience = 30000

// openAITool returns a call of the CLI's shell tool with a command; the tool differs by model.
func (c *call) openAITool(command string) object {
	id := fmt.Sprintf("call_standin_%d", len(c.s.Requests()))
	has := map[string]string{} // type by name
	var gather func(tools []object)
	gather = func(tools []object) {
		for _, t := range tools {
			has[str(t, "name")] = str(t, "type")
			gather(list(t, "tools")) // of a namespace
		}
	}
	gather(list(c.in, "tools"))
	for _, item := range list(c.in, "input") {
		gather(list(item, "tools")) // some models receive theirs as an input item
	}
	call := func(name string, arguments any) object {
		return object{"id": "fc_standin", "type": "function_call", "name": name, "call_id": id, "arguments": jsonText(arguments), "status": "completed"}
	}
	if c.scenario == Write {
		patch := "*** Begin Patch\n*** Add File: " + ToolFile + "\n+" + ToolContent + "\n*** End Patch\n"
		switch {
		case has["exec"] == "custom":
			return object{"id": "ctc_standin", "type": "custom_tool_call", "name": "exec", "call_id": id, "status": "completed", "input": "text(JSON.stringify(await tools.apply_patch(" + jsonText(patch) + ")))"}
		case has["apply_patch"] == "custom":
			return object{"id": "ctc_standin", "type": "custom_tool_call", "name": "apply_patch", "call_id": id, "status": "completed", "input": patch}
		}
		command = "apply_patch <<'EOF'\n" + patch + "EOF"
	}
	switch {
	case has["exec"] == "custom":
		return object{"id": "ctc_standin", "type": "custom_tool_call", "name": "exec", "call_id": id, "status": "completed", "input": "text(JSON.stringify(await tools.exec_command(" + jsonText(object{"cmd": command, "yield_time_ms": toolPatience}) + ")))"}
	case has["exec_command"] != "":
		return call("exec_command", object{"cmd": command, "yield_time_ms": toolPatience})
	case has["shell_command"] != "":
		return call("shell_command", object{"command": command})
	default:
		return call("shell", object{"command": []string{"sh", "-c", command}})
	}
}

func (c *call) openAIError(status int) {
	kind, code, text := "server_error", "server_error", "The server had an error while processing your request."
	more := object{}
	switch c.scenario {
	case Refused:
		kind, code, text = "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-wrong."
	case Overloaded:
		kind, code, text = "server_error", "server_is_overloaded", "The server is overloaded."
	case Quota:
		status, kind, code, text = http.StatusTooManyRequests, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."
	case Limit, Limited, LongLimit:
		kind, code, text = "requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again in 1s."
	case UsageLimit:
		kind, code, text = "usage_limit_reached", "usage_limit_reached", "The usage limit has been reached"
		more = object{"plan_type": "plus", "resets_at": c.resets()}
	}
	e := object{"type": kind, "code": code, "message": text, "param": nil}
	for name, value := range more {
		e[name] = value
	}
	c.json(status, object{"error": e})
}

// chat answers POST /v1/chat/completions, as OpenCode uses it.
func (c *call) chat() {
	if status, yes := c.refuse(); yes {
		c.openAIError(status)
		return
	}
	done, answers := str(last(list(c.in, "messages")), "role") == "tool", 0
	for _, m := range list(c.in, "messages") {
		if str(m, "role") == "tool" {
			answers++
		}
	}
	chunk := func(delta object, finish any) {
		out := object{
			"id": "chatcmpl-standin", "object": "chat.completion.chunk", "created": 1, "model": str(c.in, "model"),
			"choices": []any{object{"index": 0, "delta": delta, "finish_reason": finish}},
		}
		if finish != nil {
			out["usage"] = object{"prompt_tokens": 200, "completion_tokens": 12, "total_tokens": 212, "prompt_tokens_details": object{"cached_tokens": 50}}
		}
		c.event("", out)
	}
	end := func() {
		fmt.Fprint(c.w, "data: [DONE]\n\n")
	}
	if len(list(c.in, "tools")) == 0 {
		// A side query, such as one for the title of the session.
		chunk(object{"role": "assistant", "content": "A title"}, nil)
		chunk(object{}, "stop")
		end()
		return
	}
	next := c.next(answers)
	if next != nil || c.wantsTool(done) {
		name, arguments := "bash", object{"command": c.s.command(), "description": "write a file"}
		if c.scenario == Write {
			name, arguments = "write", object{"filePath": c.s.WritePath, "content": ToolContent + "\n"}
		}
		if next != nil {
			name, arguments = next.Name, next.Input
		}
		chunk(object{"role": "assistant", "content": nil, "tool_calls": []any{object{
			"index": 0, "id": fmt.Sprintf("call_standin_%d", answers), "type": "function", "function": object{"name": name, "arguments": jsonText(arguments)},
		}}}, nil)
		chunk(object{}, "tool_calls")
		end()
		return
	}
	chunk(object{"role": "assistant", "content": ""}, nil)
	for _, piece := range c.text(done) {
		chunk(object{"content": piece}, nil)
		if c.stopHere() {
			return
		}
	}
	chunk(object{}, "stop")
	end()
}
