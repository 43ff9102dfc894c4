package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestBrowserCases(t *testing.T) {
	t.Parallel()
	table, err := browserCases(filepath.Join("..", "..", "web", "e2e"))
	if err != nil {
		t.Fatal(err)
	}
	if cases, smoke := strings.Count(table, "\n| ")-1, strings.Count(table, "| yes |"); cases < 30 || smoke < 4 {
		t.Errorf("%d cases, %d of them in the smoke run:\n%s", cases, smoke, table)
	}
}
