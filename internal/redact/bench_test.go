package redact

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func benchSecrets(n int) []string {
	r := rand.New(rand.NewPCG(1, 2))
	const chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_!/"
	out := make([]string, n)
	for i := range out {
		b := make([]byte, 24+r.IntN(40))
		for k := range b {
			b[k] = chars[r.IntN(len(chars))]
		}
		out[i] = string(b)
	}
	return out
}

func benchLines(kind string) [][]byte {
	var lines [][]byte
	for i := range 400 {
		var s string
		switch kind {
		case "text":
			s = [...]string{
				fmt.Sprintf("2026-11-23T13:55:%02d.%06dZ INFO  worker-%d handled GET /api/v1/items/%d?limit=50 in %dms (cache hit, 200 OK)", i%60, i*977, i%7, i*31, i%90),
				fmt.Sprintf("ok  \tgithub.com/agented/agented/internal/room%d\t%d.%03ds\tcoverage: %d.%d%% of statements", i, i%9, i, i%100, i%10),
				fmt.Sprintf("    at Object.<anonymous> (/home/user/project/src/components/Table.tsx:%d:%d) and the author said that it was automatically fixed", i, i%80),
				fmt.Sprintf("commit %040x by someone: rewrite the description of the third chapter, remove what nobody reads", i*123457),
			}[i%4]
		case "json":
			s = fmt.Sprintf(`{"type":"assistant","message":{"id":"msg_%d","role":"assistant","content":[{"type":"tool_use","id":"toolu_%d","name":"Write","input":{"file_path":"/src/main.go","content":"package main\n\nimport \"fmt\"\n\nfunc main() {\n\tfmt.Println(\"hello \\\"%d\\\"\")\n}\n"}}]},"session_id":"0b9b2a5e-6c1f-4f0e-9c7e-%012x"}`, i, i, i, i)
		}
		lines = append(lines, []byte(s))
	}
	return lines
}

func BenchmarkMaskLine(b *testing.B) {
	for _, kind := range []string{"text", "json"} {
		for _, n := range []int{0, 20, 100} {
			b.Run(fmt.Sprintf("%s/%d_secrets", kind, n), func(b *testing.B) {
				m := New(benchSecrets(n))
				lines := benchLines(kind)
				dst := make([]byte, 0, 4096)
				b.SetBytes(int64(len(bytes.Join(lines, nil))))
				b.ReportAllocs()
				for b.Loop() {
					for _, l := range lines {
						dst = m.MaskLine(dst[:0], l)
					}
				}
			})
		}
	}
}

func BenchmarkStream(b *testing.B) {
	m := New(benchSecrets(20))
	lines := benchLines("text")
	dst := make([]byte, 0, 4096)
	st := m.NewStream()
	b.SetBytes(int64(len(bytes.Join(lines, nil))))
	b.ReportAllocs()
	for b.Loop() {
		for _, l := range lines {
			dst, _ = st.Mask(dst[:0], l, true)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	s := benchSecrets(20)
	b.ReportAllocs()
	for b.Loop() {
		New(s)
	}
}
