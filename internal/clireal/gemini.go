package clireal

import (
	"fmt"
	"net/http"
	"strings"
)

// gemini answers models/M:generateContent and :streamGenerateContent.
func (c *call) gemini() {
	if status, yes := c.refuse(); yes {
		c.geminiError(status)
		return
	}
	done, answers := false, 0
	for _, part := range list(last(list(c.in, "contents")), "parts") {
		done = done || part["functionResponse"] != nil
	}
	for _, content := range list(c.in, "contents") {
		for _, part := range list(content, "parts") {
			if part["functionResponse"] != nil {
				answers++
			}
		}
	}
	usage := object{"promptTokenCount": 300, "candidatesTokenCount": 15, "totalTokenCount": 315, "cachedContentTokenCount": 60}
	answer := func(parts []any, finish string) object {
		candidate := object{"index": 0, "content": object{"role": "model", "parts": parts}}
		out := object{"candidates": []any{candidate}, "modelVersion": "stand-in", "responseId": "standin"}
		if finish != "" {
			candidate["finishReason"] = finish
			out["usageMetadata"] = usage
		}
		return out
	}
	if !strings.Contains(c.path, "streamGenerateContent") {
		// The CLI asks which model should answer; any JSON of the right form will do.
		c.json(http.StatusOK, answer([]any{object{"text": `{"reasoning":"simple","complexity_reasoning":"simple","complexity_score":10,"model_choice":"flash"}`}}, "STOP"))
		return
	}
	if next := c.next(answers); next != nil && len(list(c.in, "tools")) > 0 {
		c.event("", answer([]any{object{"functionCall": object{"name": next.Name, "args": next.Input}}}, "STOP"))
		return
	}
	if c.wantsTool(done) {
		name, arguments := "run_shell_command", object{"command": c.s.command(), "description": "write a file"}
		if c.scenario == Write {
			name, arguments = "write_file", object{"file_path": c.s.WritePath, "content": ToolContent + "\n"}
		}
		c.event("", answer([]any{object{"functionCall": object{"name": name, "args": arguments}}}, "STOP"))
		return
	}
	for _, piece := range c.text(done) {
		c.event("", answer([]any{object{"text": piece}}, ""))
		if c.stopHere() {
			return
		}
	}
	c.event("", answer([]any{object{"text": ""}}, "STOP"))
}

func (c *call) geminiError(status int) {
	name, text := "INTERNAL", "An internal error has occurred."
	var details []any
	switch c.scenario {
	case Refused:
		status, name, text = http.StatusBadRequest, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."
		details = []any{object{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com", "metadata": object{"service": "generativelanguage.googleapis.com"}}}
	case Overloaded:
		name, text = "UNAVAILABLE", "The model is overloaded. Please try again later."
	case Limit, Limited, LongLimit, UsageLimit, Quota:
		status = http.StatusTooManyRequests
		seconds := 1
		if c.scenario == LongLimit {
			seconds = 3600
		}
		name, text = "RESOURCE_EXHAUSTED", fmt.Sprintf("You exceeded your current quota, please check your plan and billing details. Please retry in %ds.", seconds)
		id := "GenerateRequestsPerMinutePerProjectPerModel"
		details = []any{object{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": fmt.Sprintf("%ds", seconds)}}
		if c.scenario == UsageLimit || c.scenario == Quota {
			id = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
			text = "You exceeded your current quota, please check your plan and billing details."
			details = nil
		}
		details = append(details, object{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []any{object{"quotaMetric": "generativelanguage.googleapis.com/generate_requests", "quotaId": id, "quotaValue": "10"}}})
	}
	c.json(status, object{"error": object{"code": status, "message": text, "status": name, "details": details}})
}
