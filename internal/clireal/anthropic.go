package clireal

import (
	"fmt"
	"net/http"
	"strings"
)

// anthropic answers POST /v1/messages.
func (c *call) anthropic() {
	if status, yes := c.refuse(); yes {
		c.anthropicError(status)
		return
	}
	done, answers := false, 0
	messages := list(c.in, "messages")
	for _, m := range messages {
		for _, block := range list(m, "content") {
			if str(block, "type") == "tool_result" {
				answers++
			}
		}
	}
	if c.scenario != Once {
		messages = messages[max(len(messages)-1, 0):]
	}
	for _, m := range messages {
		for _, block := range list(m, "content") {
			done = done || str(block, "type") == "tool_result"
		}
	}
	model := str(c.in, "model")
	message := object{
		"id": "msg_standin", "type": "message", "role": "assistant", "model": model, "content": []any{},
		"stop_reason": nil, "stop_sequence": nil,
		"usage": object{"input_tokens": 100, "output_tokens": 1, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 11},
	}
	stop, tool := "end_turn", object(nil)
	wants, command := c.wantsTool(done) && len(list(c.in, "tools")) > 0, c.s.command()
	if wants && c.scenario == Tool && c.s.Ask != nil {
		command = c.s.Ask(askedLast(c.in))
		wants = command != ""
	}
	if wants {
		stop = "tool_use"
		tool = object{"type": "tool_use", "id": "toolu_standin_" + fmt.Sprint(len(c.s.Requests())), "name": "Bash", "input": object{}}
		if c.scenario == Write {
			tool["name"] = "Write"
		}
	}
	input := object{"command": command, "description": "write a file"}
	if c.scenario == Write {
		input = object{"file_path": c.s.WritePath, "content": ToolContent + "\n"}
	}
	if next := c.next(answers); next != nil && len(list(c.in, "tools")) > 0 {
		stop, input = "tool_use", next.Input
		tool = object{"type": "tool_use", "id": fmt.Sprintf("toolu_standin_%d", answers), "name": next.Name, "input": object{}}
	}
	if stream, _ := c.in["stream"].(bool); !stream {
		if c.stopHere() {
			return
		}
		text := ""
		for _, piece := range c.text(done) {
			text += piece
		}
		message["content"] = []any{object{"type": "text", "text": text}}
		if tool != nil {
			tool["input"] = input
			message["content"] = []any{tool}
		}
		message["stop_reason"] = stop
		c.json(http.StatusOK, message)
		return
	}
	c.event("message_start", object{"type": "message_start", "message": message})
	if tool != nil {
		c.event("content_block_start", object{"type": "content_block_start", "index": 0, "content_block": tool})
		c.event("content_block_delta", object{"type": "content_block_delta", "index": 0, "delta": object{"type": "input_json_delta", "partial_json": jsonText(input)}})
	} else {
		c.event("content_block_start", object{"type": "content_block_start", "index": 0, "content_block": object{"type": "text", "text": ""}})
		for _, piece := range c.text(done) {
			c.event("content_block_delta", object{"type": "content_block_delta", "index": 0, "delta": object{"type": "text_delta", "text": piece}})
			if c.stopHere() {
				return
			}
		}
	}
	c.event("content_block_stop", object{"type": "content_block_stop", "index": 0})
	c.event("message_delta", object{
		"type": "message_delta", "delta": object{"stop_reason": stop, "stop_sequence": nil},
		"usage": object{"input_tokens": 100, "output_tokens": 20, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 11},
	})
	c.event("message_stop", object{"type": "message_stop"})
}

// askedLast returns the messages since the model's last answer.
func askedLast(in object) string {
	var parts []string
	for _, m := range list(in, "messages") {
		if str(m, "role") == "assistant" {
			parts = nil
			continue
		}
		parts = append(parts, str(m, "content"))
		for _, block := range list(m, "content") {
			parts = append(parts, str(block, "text"))
		}
	}
	return strings.Join(parts, "\n")
}

func (c *call) anthropicError(status int) {
	kind, text := "api_error", "Internal server error"
	if c.scenario == Refused || c.scenario == Quota {
		c.w.Header().Set("X-Should-Retry", "false") // otherwise the client retries ten times
	}
	switch c.scenario {
	case Refused:
		kind, text = "authentication_error", "invalid x-api-key"
	case Overloaded:
		status, kind, text = 529, "overloaded_error", "Overloaded"
	case Quota:
		status, kind, text = http.StatusBadRequest, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."
	case Limit, Limited, LongLimit:
		kind, text = "rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per minute."
	case UsageLimit:
		kind, text = "rate_limit_error", "This request would exceed your account's rate limit. Please try again later."
		h := c.w.Header()
		h.Set("anthropic-ratelimit-unified-status", "rejected")
		h.Set("anthropic-ratelimit-unified-representative-claim", "five_hour")
		h.Set("anthropic-ratelimit-unified-reset", fmt.Sprint(c.resets()))
		h.Set("anthropic-ratelimit-unified-5h-status", "rejected")
		h.Set("anthropic-ratelimit-unified-5h-reset", fmt.Sprint(c.resets()))
		h.Set("anthropic-ratelimit-unified-5h-utilization", "1.0")
		h.Set("anthropic-ratelimit-unified-overage-status", "rejected")
	}
	c.json(status, object{"type": "error", "error": object{"type": kind, "message": text}, "request_id": "req_standin"})
}
