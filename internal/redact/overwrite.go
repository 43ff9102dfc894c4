package redact

// Overwrite overwrites every secret in text with asterisks, in place, so that no
// other byte moves. The text may have several lines.
func (m *Masker) Overwrite(text []byte) {
	if m == nil {
		return
	}
	s := scan{t: text, final: true}
	m.scan(&s)
	for _, x := range s.spans {
		for i := x.lo; i < x.hi; i++ {
			text[i] = '*'
		}
	}
}
