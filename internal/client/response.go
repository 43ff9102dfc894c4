package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Response is an answer of the server.
type Response[T any] struct {
	Value T               // the fields that the program reads
	Raw   json.RawMessage // the complete answer, which commands print with --json
}

// UnmarshalJSON keeps the JSON and decodes the fields.
func (r *Response[T]) UnmarshalJSON(b []byte) error {
	r.Raw = append(json.RawMessage(nil), b...)
	return json.Unmarshal(b, &r.Value)
}

// MarshalJSON returns the JSON as the server sent it.
func (r Response[T]) MarshalJSON() ([]byte, error) {
	if r.Raw == nil {
		return []byte("null"), nil
	}
	return r.Raw, nil
}

// pageSize is the maximum number of items that one request for a list returns.
const pageSize = 200

// do sends a request and returns the answer.
func do[T any](ctx context.Context, c *Client, method, path string, body any) (Response[T], error) {
	var r Response[T]
	err := c.Do(ctx, method, path, nil, body, &r)
	return r, err
}

// list returns the items of a paged list, at most limit; 0 means all. An error ends the list.
func list[T any](ctx context.Context, c *Client, path string, query url.Values, limit int) iter.Seq2[Response[T], error] {
	return func(yield func(Response[T], error) bool) {
		for seen := 0; ; {
			page := pageSize
			if limit > 0 {
				page = min(page, limit-seen)
			}
			query.Set("limit", strconv.Itoa(page))
			var got struct {
				Items []Response[T] `json:"items"`
				Next  *string       `json:"next_cursor"`
			}
			if err := c.Do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, nil, &got); err != nil {
				yield(Response[T]{}, err)
				return
			}
			for _, item := range got.Items {
				if !yield(item, nil) {
					return
				}
				seen++
			}
			if got.Next == nil || limit > 0 && seen >= limit {
				return
			}
			query.Set("cursor", *got.Next)
		}
	}
}

// values returns a query without the parameters that are empty, from pairs of name and value.
func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

// at returns the path of one object below a collection, with what follows it.
func at(collection, id, more string) string { return collection + "/" + url.PathEscape(id) + more }
