//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// wire is a connection for consecutive requests. It avoids net/http's client, whose cost would be
// measured too.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(addr string) (*wire, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &wire{conn: c, in: bufio.NewReader(c)}, nil
}

// ask sends a request and reads the response.
func (w *wire) ask(request string) (status int, body []byte, err error) {
	if _, err := io.WriteString(w.conn, request); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// get formats a request without a body.
func get(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + apiKey + "\r\n\r\n"
}

// stream formats a request for server-sent events, like an EventSource.
func stream(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + apiKey + "\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n"
}

// post formats a request with a JSON body.
func post(path, body string, headers ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		path, apiKey, strings.Join(headers, ""), len(body), body)
}

// load runs clients that each send consecutive requests for some time. It returns the duration of
// each request in milliseconds.
func load(addr string, clients int, span time.Duration, request func(client, i int) string) (took []float64, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(span)
	for c := range clients {
		wg.Go(func() {
			mine, e := loadOne(addr, end, func(i int) string { return request(c, i) })
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if e != nil {
				err = e
			}
		})
	}
	wg.Wait()
	return took, err
}

func loadOne(addr string, end time.Time, request func(i int) string) (took []float64, err error) {
	w, err := dial(addr)
	if err != nil {
		return nil, err
	}
	defer w.conn.Close()
	for i := 0; time.Now().Before(end); i++ {
		r := request(i)
		began := time.Now()
		status, body, err := w.ask(r)
		if err != nil {
			return took, err
		}
		if status >= 300 {
			return took, fmt.Errorf("status %d: %s", status, body)
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	return took, nil
}
