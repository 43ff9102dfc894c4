package api

import (
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// An automaton tells whether an expression matches in a line, byte by byte from
// a table that it fills as it goes. It does not tell where. Its answer is that
// of package regexp, whose compiled program it follows: a state is the set of
// the program's instructions that wait for the next rune. It is for one
// goroutine at a time.
type automaton struct {
	prog  *syntax.Prog
	asks  syntax.EmptyOp // what the program asks of the places between runes
	alike bool           // no instruction tells one rune behind ASCII from another
	apart bool           // no match holds a piece of a mask or depends on one beside it: see visible

	next  []uint16 // where a state goes: next[state<<8|byte]
	ends  []uint16 // what the end of the line makes of a state
	spots []spot   // what a state is
	known map[string]uint16

	key   []byte
	seen  []bool // by instruction
	stack []uint32
}

// spot is a place in a line as the program sees it.
type spot struct {
	prev rune     // stands for the rune before: see before
	part string   // first bytes of a rune whose end has not come
	at   []uint32 // instructions that wait, sorted; the first is always one more
}

const (
	unknown uint16 = iota // not looked at yet, or there was no room for it
	found                 // what comes now does not matter
	lost                  // what the end of a line without a match leads to
	begin                 // in front of the line

	maxStates = 2048 // 512 bytes and a spot each
	maxInsts  = 1000
)

// newAutomaton returns the automaton of an expression; nil if there is none, or
// if it is so large that a step costs more than it saves.
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

// alike reports whether an instruction treats all runes behind ASCII as one.
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

// state returns the state of a spot; unknown if there is no room for it.
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

// matches reports whether the expression matches in a line, or may.
func (a *automaton) matches(line []byte) bool { return a.goOn(begin, line) }

// goOn is matches for what is left of a line when the automaton is in a state.
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

// step finds out where a state goes with a byte.
func (a *automaton) step(s uint16, c byte) uint16 {
	p := a.spots[s]
	part, to := p.part+string([]byte{c}), found
	if a.alike && c >= utf8.RuneSelf {
		// How many runes such bytes are does not matter if one leads to where two do.
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

// end finds out what the end of a line makes of a state.
func (a *automaton) end(s uint16) uint16 {
	p := a.spots[s]
	matched := false
	for range len(p.part) { // bytes that are no rune are one error each
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

// read returns the spot behind a rune, of which -1 is the end of the line, and
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

// before returns what stands for a rune in the question what was before: the
// fewer differ, the fewer states there are.
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

// sift notes in may[i] whether the expression may match in line i. text gives
// the lines, or says that there is nothing to look at; its bytes must stay
// until it is asked for the next line of the same lane.
//
// Where a state goes must be known before the next byte can be looked at. Most
// of the time is that wait, so four lines take little longer than one.
func (a *automaton) sift(may []bool, text func(lane, i int) ([]byte, bool)) {
	var line [lanes]int
	var all, rest [lanes][]byte // of a line; nil is no line
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
