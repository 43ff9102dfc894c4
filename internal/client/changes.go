package client

import (
	"context"
	"io"
	"net/http"
	"strconv"
)

// Changes is what an attempt of an execution changed.
type Changes struct {
	Recorded  bool           `json:"recorded"`
	Attempt   int            `json:"attempt"`
	Base      string         `json:"base"`
	Head      string         `json:"head"`
	Commits   []ChangeCommit `json:"commits"`
	Files     []ChangedFile  `json:"files"`
	FileCount int            `json:"file_count"`
	Added     int            `json:"added"`
	Removed   int            `json:"removed"`
	Truncated bool           `json:"truncated"`
	Reason    string         `json:"reason"`
	PatchSize int64          `json:"patch_size"`
	Artifacts []Artifact     `json:"artifacts"`
}

// ChangeCommit is a commit that an attempt added.
type ChangeCommit struct {
	ID      string `json:"id"`
	Subject string `json:"subject"`
}

// ChangedFile is a changed file.
type ChangedFile struct {
	Path    string `json:"path"`
	Old     string `json:"old_path"`
	Status  string `json:"status"`
	Added   int    `json:"added"`
	Removed int    `json:"removed"`
	Binary  bool   `json:"binary"`
	Size    *int64 `json:"size"`
	OldSize *int64 `json:"old_size"`
}

// Artifact is a file that an attempt left.
type Artifact struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// ChangesSummary counts what an execution changed.
type ChangesSummary struct {
	Files     int    `json:"files"`
	Added     int    `json:"added"`
	Removed   int    `json:"removed"`
	Commits   int    `json:"commits"`
	Artifacts int    `json:"artifacts"`
	Reason    string `json:"reason"`
}

// ofAttempt returns the query for an attempt; 0 is the latest.
func ofAttempt(attempt int) string {
	if attempt == 0 {
		return ""
	}
	return "?attempt=" + strconv.Itoa(attempt)
}

// Changes fetches what an attempt of an execution changed. Attempt 0 is the latest with changes.
func (c *Client) Changes(ctx context.Context, id string, attempt int) (Response[Changes], error) {
	return do[Changes](ctx, c, http.MethodGet, at(executionsPath, id, "/changes"+ofAttempt(attempt)), nil)
}

// Patch returns the patch of an attempt. The caller closes it. Attempt 0 is the latest with changes.
func (c *Client) Patch(ctx context.Context, id string, attempt int) (io.ReadCloser, error) {
	resp, err := c.send(ctx, http.MethodGet, at(executionsPath, id, "/changes.patch"+ofAttempt(attempt)), nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
