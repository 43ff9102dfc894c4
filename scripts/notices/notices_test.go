package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestNotices compares the dependencies with the committed notices.
func TestNotices(t *testing.T) {
	if testing.Short() {
		t.Skip("lists the packages of four platforms")
	}
	t.Chdir("../..")
	deps, err := collect()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(noticesFile)
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	table, _, _ := strings.Cut(string(b), "\n## ") // licence texts follow
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "| Go |") || strings.HasPrefix(line, "| npm |") {
			at := strings.LastIndex(strings.TrimSuffix(strings.TrimSpace(line), " |"), " | ")
			listed = append(listed, line[:at]+" |")
			for l := range strings.SplitSeq(strings.Trim(line[at:], " |\n"), ", ") {
				if !slices.Contains(permitted, l) {
					t.Errorf("%s: the licence %s is not permitted", line, l)
				}
			}
		}
	}
	var want []string
	for _, d := range deps {
		want = append(want, row(d))
	}
	if !slices.Equal(listed, want) {
		for _, w := range want {
			if !slices.Contains(listed, w) {
				t.Errorf("%s lacks %s", noticesFile, w)
			}
		}
		for _, l := range listed {
			if !slices.Contains(want, l) {
				t.Errorf("%s has %s, which is not a dependency", noticesFile, l)
			}
		}
		t.Error("update it with `make generate`, after `npm ci` in web/")
	}
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	for want, text := range map[string]string{
		"MIT":          "Permission is hereby granted,\nfree of charge, to any person",
		"Apache-2.0":   "Apache License\n Version 2.0, January 2004",
		"ISC":          "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, provided that the above copyright notice",
		"0BSD":         "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted.",
		"BSD-2-Clause": "Redistribution and use in source and binary forms, with or without modification",
		"BSD-3-Clause": "Redistribution and use in source and binary forms. Neither the name of",
		"MPL-2.0":      "Mozilla Public License Version 2.0",
		"GPL":          "GNU GENERAL PUBLIC LICENSE",
		"unknown":      "All rights reserved.",
	} {
		if got := identify(text); !slices.Equal(got, []string{want}) {
			t.Errorf("%q is %v, want %s", text, got, want)
		}
	}
}
