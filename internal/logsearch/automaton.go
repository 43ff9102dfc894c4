package logsearch

import (
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// An automaton reports whether an expression matches in a line, using a lazily
// built transition table over bytes. It does not report the position of a
// match. Its result equals that of package regexp, whose compiled program it
// follows: a state is the set of the program's instructions that wait for the
// next rune. It must not be used concurrently.
type automaton struct {
	prog  *syntax.Prog
	asks  syntax.EmptyOp // empty-width assertions in the program
	alike bool           // no instruction distinguishes between runes outside ASCII
	apart bool           // no match contains part of a mask or depends on an adjacent one: see visible

	next  []uint16 // transitions: next[state<<8|byte]
	ends  []uint16 // state after the end of the line
	spots []spot   // the spot of each state
	known map[string]uint16

	key   []byte
	seen  []bool // by instruction
	stack []uint32
}

// spot is a position in a line, as seen by the program.
type spot struct {
	prev rune     // represents the preceding rune: see before
	part string   // first bytes of an incomplete rune
	at   []uint32 // waiting instructions, sorted; the first is always one more
}

const (
	unknown uint16 = iota // not computed yet, or no room for it
	found                 // a match; the remaining input does not matter
	lost                  // end of a line without a match
	begin                 // start of the line

	maxStates = 2048 // 512 bytes and a spot each
	maxInsts  = 1000
)

// newAutomaton returns the automaton of an expression, or nil if the expression
// is invalid or so large that a step costs more than it saves.
func newAutomaton(expr string) *automaton {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil || len(prog.Inst) > maxInsts {
		return nil
	}
	a := &automaton{prog: prog, alike: true, apart: true, known: map[string]uint16{}, seen: make([]bool, len(prog.Inst))}
	for i := range prog.Inst {
		switch in := &prog.Inst[i]; in.Op {
		case syntax.InstEmptyWidth:
			a.asks |= syntax.EmptyOp(in.Arg)
			a.apart = false
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			a.alike = a.alike && alike(in)
			a.apart = a.apart && !in.MatchRune('*') && !in.MatchRune(utf8.RuneError)
		}
	}
	for s := range begin {
		a.add(spot{})
		for c := range 256 {
			a.next[int(s)<<8|c] = s
		}
		a.ends[s] = s
	}
	a.add(spot{prev: -1})
	return a
}

// alike reports whether an instruction treats all runes outside ASCII the same.
func alike(in *syntax.Inst) bool {
	if len(in.Rune) == 1 {
		r := in.Rune[0]
		folded := syntax.Flags(in.Arg)&syntax.FoldCase != 0
		for f := unicode.SimpleFold(r); folded && f != r; f = unicode.SimpleFold(f) {
			if f >= utf8.RuneSelf {
				return false
			}
		}
		return r < utf8.RuneSelf
	}
	for i := 0; i < len(in.Rune); i += 2 {
		if lo, hi := in.Rune[i], in.Rune[i+1]; hi >= utf8.RuneSelf && (lo > utf8.RuneSelf || hi < unicode.MaxRune) {
			return false
		}
	}
	return true
}

func (a *automaton) add(p spot) uint16 {
	s := uint16(len(a.spots))
	a.spots = append(a.spots, p)
	a.next = append(a.next, make([]uint16, 256)...)
	a.ends = append(a.ends, unknown)
	return s
}

// state returns the state of a spot, or unknown if there is no room for it.
func (a *automaton) state(p spot) uint16 {
	a.key = append(a.key[:0], byte(p.prev), byte(len(p.part)))
	a.key = append(a.key, p.part...)
	for _, pc := range p.at {
		a.key = append(a.key, byte(pc), byte(pc>>8))
	}
	s := a.known[string(a.key)]
	if s == unknown && len(a.spots) < maxStates {
		s = a.add(p)
		a.known[string(a.key)] = s
	}
	return s
}

// matches reports whether the expression matches in a line, or may match.
func (a *automaton) matches(line []byte) bool { return a.goOn(begin, line) }

// goOn continues matches from a state with the rest of a line.
func (a *automaton) goOn(s uint16, rest []byte) bool {
	for _, c := range rest {
		to := a.next[int(s)<<8|int(c)]
		if to == unknown {
			to = a.step(s, c)
		}
		if to <= found {
			return true
		}
		s = to
	}
	if a.ends[s] == unknown {
		a.ends[s] = a.end(s)
	}
	return a.ends[s] == found
}

// step computes the transition of a state with a byte.
func (a *automaton) step(s uint16, c byte) uint16 {
	p := a.spots[s]
	part, to := p.part+string([]byte{c}), found
	if a.alike && c >= utf8.RuneSelf {
		// The number of runes does not matter if one leads to the same state as
		// two.
		once, matched := a.read(p, utf8.RuneError)
		if twice, again := a.read(once, utf8.RuneError); !matched && !again && once.prev == twice.prev && slices.Equal(once.at, twice.at) {
			p, part = once, ""
		}
	}
	matched := false
	for !matched && utf8.FullRuneInString(part) {
		r, n := utf8.DecodeRuneInString(part)
		part = part[n:]
		p, matched = a.read(p, r)
	}
	if !matched {
		p.part = part
		to = a.state(p)
	}
	a.next[int(s)<<8|int(c)] = to
	return to
}

// end computes the transition of a state at the end of a line.
func (a *automaton) end(s uint16) uint16 {
	p := a.spots[s]
	matched := false
	for range len(p.part) { // each invalid byte counts as one error rune
		p, matched = a.read(p, utf8.RuneError)
		if matched {
			return found
		}
	}
	if _, matched = a.read(p, -1); matched {
		return found
	}
	return lost
}

// read returns the spot after a rune, where -1 is the end of the line, and
// whether a match ends before it.
func (a *automaton) read(p spot, r rune) (next spot, matched bool) {
	around := syntax.EmptyOpContext(p.prev, r)
	a.stack = append(append(a.stack[:0], p.at...), uint32(a.prog.Start))
	clear(a.seen)
	for len(a.stack) > 0 {
		pc := a.stack[len(a.stack)-1]
		a.stack = a.stack[:len(a.stack)-1]
		if a.seen[pc] {
			continue
		}
		a.seen[pc] = true
		switch in := &a.prog.Inst[pc]; in.Op {
		case syntax.InstMatch:
			return spot{}, true
		case syntax.InstAlt, syntax.InstAltMatch:
			a.stack = append(a.stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			a.stack = append(a.stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^around == 0 {
				a.stack = append(a.stack, in.Out)
			}
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if r >= 0 && in.MatchRune(r) {
				next.at = append(next.at, in.Out)
			}
		}
	}
	slices.Sort(next.at)
	next.at = slices.Compact(next.at)
	next.prev = a.before(r)
	return next, false
}

// before maps the preceding rune to a representative. Fewer representatives
// mean fewer states.
func (a *automaton) before(r rune) rune {
	switch {
	case r == '\n' && a.asks&syntax.EmptyBeginLine != 0:
		return r
	case syntax.IsWordChar(r) && a.asks&(syntax.EmptyWordBoundary|syntax.EmptyNoWordBoundary) != 0:
		return 'a'
	}
	return ' '
}

const lanes = 4

// sift sets may[i] if the expression may match in line i. text returns the
// lines, or reports that there are no more; its bytes must stay valid until
// text is called for the next line of the same lane.
//
// Each transition must be known before the next byte can be processed. Most of
// the time is spent on that latency, so four interleaved lines take little
// longer than one.
func (a *automaton) sift(may []bool, text func(lane, i int) ([]byte, bool)) {
	var line [lanes]int
	var all, rest [lanes][]byte // of a line; nil means no line
	var state [lanes]uint16
	settle := func(k int) {
		if state[k] == unknown {
			state[k], rest[k] = begin, all[k]
		}
		may[line[k]] = a.goOn(state[k], rest[k])
		all[k] = nil
	}
	clear(may)
	for i := 0; ; {
		for k := range lanes {
			if all[k] != nil && len(rest[k]) > 0 {
				continue
			}
			if all[k] != nil {
				settle(k)
			}
			for ; all[k] == nil && i < len(may); i++ {
				t, ok := text(k, i)
				if ok && len(t) == 0 {
					may[i] = a.matches(nil)
				} else if ok {
					line[k], all[k], rest[k], state[k] = i, t, t, begin
				}
			}
			if all[k] == nil {
				for k := range lanes {
					if all[k] != nil {
						settle(k)
					}
				}
				return
			}
		}
		n := min(len(rest[0]), len(rest[1]), len(rest[2]), len(rest[3]))
		t0, t1, t2, t3 := rest[0][:n], rest[1][:n], rest[2][:n], rest[3][:n]
		s0, s1, s2, s3 := int(state[0]), int(state[1]), int(state[2]), int(state[3])
		next := a.next
		for i := range t0 {
			s0 = int(next[s0<<8|int(t0[i])])
			s1 = int(next[s1<<8|int(t1[i])])
			s2 = int(next[s2<<8|int(t2[i])])
			s3 = int(next[s3<<8|int(t3[i])])
		}
		for k, s := range [lanes]int{s0, s1, s2, s3} {
			rest[k], state[k] = rest[k][n:], uint16(s)
		}
	}
}
