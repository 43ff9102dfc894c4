import { draw, type Look, type Times } from './draw'
import { entryOf, type Entry } from './entries'
import { endPlace, fromScroll, move, reached, toScroll, trackHeight, type Anchor } from './scroll'
import type { LogLine } from './types'
import { fetchRange, LogWindow, Tail, type Fetch } from './window'

export const rowHeight = 20
const ahead = 1000 // lines per request
const near = 250 // distance in entries from an end of the window at which more is fetched

export interface ViewState {
  last: number
  top: number // number of the line at the top
  follow: boolean
  fresh: number // lines that arrived while the view did not follow
  loading: boolean
  error: string
}

interface Options {
  fetch: Fetch
  changed: (s: ViewState) => void
  clicked: (seq: number, extend: boolean) => void
}

interface Mounted {
  el: HTMLElement
  version: number
}

/**
 * LogView shows a window of a log in a scrolling element. It creates rows without Vue,
 * to keep up with thousands of lines per second. Its state is a position (an entry and an
 * offset), from which rows and scroll bar are derived.
 */
export class LogView {
  private readonly track = document.createElement('div')
  private readonly layer = document.createElement('div')
  private readonly rows = document.createElement('div')
  private win: LogWindow
  private readonly tail = new Tail()
  private last = 0
  private place: Anchor = { index: 0, offset: 0 }
  private placeSeq = 0
  private generation = 0
  private follow = true
  private seenLast = 0
  private mounted = new Map<Entry, Mounted>()
  private opened = new Set<string>()
  private look: Look = { times: 'off', start: 0, attempts: false }
  private wrap = false
  private chosen: [number, number] | undefined
  private hit = 0
  private pattern: RegExp | undefined
  private frame = 0
  private loads = 0
  private loading = false
  private extending = false
  private error = ''
  private scrolledTo = 0
  private drawnView = 0
  private userAt = 0
  private settling = 0 // until then, scroll bar movements by the browser are undone
  private dragging = false
  private wanted: number | undefined
  private idle = 0
  private widest = 0
  private readonly sizes: ResizeObserver
  private dead = false

  constructor(
    private readonly root: HTMLElement,
    private readonly o: Options,
    structured: boolean,
  ) {
    this.win = new LogWindow(structured)
    this.track.className = 'lv-track'
    this.layer.className = 'lv-layer'
    this.rows.className = 'lv-rows'
    this.layer.append(this.rows)
    this.track.append(this.layer)
    root.replaceChildren(this.track)
    root.addEventListener('scroll', this.onScroll, { passive: true })
    root.addEventListener('wheel', this.onWheel, { passive: true })
    root.addEventListener('touchmove', this.touched, { passive: true })
    root.addEventListener('mousedown', this.onDown)
    root.addEventListener('keydown', this.touched, { passive: true })
    root.addEventListener('click', this.onClick)
    window.addEventListener('mouseup', this.onUp)
    window.addEventListener('mousemove', this.onMove)
    let width = 0
    this.sizes = new ResizeObserver(() => {
      if (root.clientWidth !== width) {
        width = root.clientWidth
        this.remeasure()
      }
      this.draw()
    })
    this.sizes.observe(root)
  }

  destroy(): void {
    this.dead = true
    this.sizes.disconnect()
    cancelAnimationFrame(this.frame)
    clearTimeout(this.idle)
    this.root.removeEventListener('scroll', this.onScroll)
    this.root.removeEventListener('wheel', this.onWheel)
    this.root.removeEventListener('touchmove', this.touched)
    this.root.removeEventListener('mousedown', this.onDown)
    this.root.removeEventListener('keydown', this.touched)
    this.root.removeEventListener('click', this.onClick)
    window.removeEventListener('mouseup', this.onUp)
    window.removeEventListener('mousemove', this.onMove)
    CSS.highlights?.delete('lv-found')
  }

  // Content.

  /** Sets a lower bound for the length of the log. */
  setLast(last: number): void {
    if (last <= this.last) return
    this.last = last
    this.draw()
  }

  /** Sets the line after which the stream starts. */
  streamFrom(after: number): void {
    this.tail.start(after)
    if (this.win.lines.length === 0 && this.win.upTo < after && this.follow) this.win.reset([], after, after)
    this.setLast(after)
  }

  /** Adds lines of the stream, in order. */
  append(lines: readonly LogLine[]): void {
    const before = this.tail.end
    const fresh = lines.filter(l => l.seq > before)
    if (fresh.length === 0) return
    this.tail.add(fresh)
    this.last = Math.max(this.last, this.tail.end)
    // The window may be ahead of the stream if the end was fetched.
    if (this.win.upTo >= before && (this.follow || !this.win.full)) {
      const next = fresh.filter(l => l.seq > this.win.upTo)
      if (next.length > 0) this.win.append(next, this.tail.end)
      if (this.follow && this.win.full) this.win.trim('top', Number.MAX_SAFE_INTEGER, 0)
    }
    if (fresh.some(l => l.attempt > 1)) this.setLook({ attempts: true })
    this.draw()
  }

  // Display options.

  setLook(look: Partial<Look>): void {
    if (Object.entries(look).every(([k, v]) => this.look[k as keyof Look] === v)) return
    this.look = { ...this.look, ...look }
    this.redraw()
  }

  setTimes(times: Times, start: number): void {
    this.setLook({ times, start })
  }

  setWrap(on: boolean): void {
    if (this.wrap === on) return
    this.wrap = on
    this.widest = 0
    this.root.classList.toggle('lv-wrap', on)
    this.redraw()
  }

  setStructured(on: boolean): void {
    this.win.setStructured(on)
    this.redraw()
  }

  setChosen(range: [number, number] | undefined): void {
    this.chosen = range
    this.draw()
  }

  setFound(pattern: RegExp | undefined, hit: number): void {
    this.pattern = pattern
    this.hit = hit
    this.draw()
  }

  /** Returns the text of a range of lines, without numbers and times. */
  async textOf(from: number, to: number): Promise<string> {
    const lines: LogLine[] = []
    let after = from - 1
    while (after < to) {
      const got = await fetchRange(this.o.fetch, after, Math.min(to, after + 20_000))
      lines.push(...got.lines)
      if (got.upTo <= after) break
      after = got.upTo
    }
    let out = ''
    for (const l of lines) out += l.content + (l.part === 'first' || l.part === 'middle' ? '' : '\n')
    return out
  }

  get lines(): number {
    return this.last
  }

  // Position.

  setFollow(on: boolean): void {
    if (on) {
      this.follow = true
      this.seenLast = this.last
      void this.toEnd()
    } else {
      this.letGo()
    }
    this.draw()
  }

  /** Scrolls a line to one third below the top. */
  async goTo(seq: number): Promise<void> {
    this.letGo()
    seq = Math.max(1, this.last > 0 ? Math.min(seq, this.last) : seq)
    if (!(seq > this.win.after && seq <= this.win.upTo)) {
      if (!(await this.loadAround(seq))) return
    }
    const view = this.root.clientHeight
    const index = entryOf(this.win.entries, seq)
    this.place = move({ index, offset: 0 }, -Math.floor(view / 3), this.win.entries.length, this.height)
    this.userAt = 0
    // Smooth scrolling from the last wheel event must not
    // continue from here.
    this.settling = performance.now() + 300
    this.note()
    this.draw()
  }

  private letGo(): void {
    if (!this.follow) return
    this.follow = false
    this.seenLast = this.last
  }

  private async toEnd(): Promise<void> {
    if (this.win.upTo >= this.last) return
    if (this.tail.end >= this.last && this.tail.behind(Math.max(0, this.last - 300))) {
      this.win.reset([...this.tail.lines], this.tail.after, this.tail.end)
    } else if (await this.load(Math.max(0, this.last - ahead), this.last)) {
      const rest = this.tail.behind(this.win.upTo)
      if (rest && rest.length > 0) this.win.append(rest, this.tail.end)
    }
    this.draw()
  }

  private loadAround(seq: number): Promise<boolean> {
    const after = Math.max(0, seq - Math.floor(ahead / 3))
    return this.load(after, Math.min(Math.max(this.last, seq), after + ahead))
  }

  /** Replaces the window. Returns false if a later request replaced it or it failed. */
  private async load(after: number, upTo: number): Promise<boolean> {
    const mine = ++this.loads
    this.loading = true
    this.tell()
    try {
      const got = await fetchRange(this.o.fetch, after, upTo)
      if (mine !== this.loads || this.dead) return false
      this.error = ''
      this.loading = false
      this.win.reset(got.lines, after, got.upTo)
      this.place = { index: 0, offset: 0 }
      this.generation = this.win.generation
      return true
    } catch (err) {
      if (mine !== this.loads || this.dead) return false
      this.loading = false
      this.error = err instanceof Error ? err.message : String(err)
      this.tell()
      return false
    }
  }

  /** Fetches the next lines before they become visible. */
  private async extend(): Promise<void> {
    if (this.extending || this.loading || this.dead) return
    const count = this.win.entries.length
    const win = this.win
    const generation = win.generation
    let after: number, upTo: number
    if (win.upTo < this.last && (this.follow || count - this.place.index < near)) {
      const rest = this.tail.behind(win.upTo)
      if (rest && rest.length > 0) {
        win.append(rest, this.tail.end)
        this.shrink('top')
        this.draw()
        return
      }
      after = win.upTo
      upTo = Math.min(this.last, after + ahead)
    } else if (win.after > 0 && this.place.index < near && (!this.follow || (!this.filled && !this.win.full))) {
      upTo = win.after
      after = Math.max(0, upTo - ahead)
    } else {
      return
    }
    this.extending = true
    const loads = this.loads
    try {
      const got = await fetchRange(this.o.fetch, after, upTo)
      if (
        this.dead ||
        loads !== this.loads ||
        (generation !== win.generation && after !== win.upTo && upTo !== win.after)
      )
        return
      this.error = ''
      if (after === win.upTo) {
        win.append(got.lines, got.upTo)
        this.shrink('top')
      } else if (upTo === win.after && got.upTo === upTo) {
        win.prepend(got.lines, after)
        this.shrink('bottom')
      } else if (upTo === win.after) {
        // Very long lines: only the upper part arrived, and there is a gap.
        const rest = await fetchRange(this.o.fetch, Math.max(after, upTo - 50), upTo)
        if (upTo === win.after && rest.upTo === upTo) win.prepend(rest.lines, Math.max(after, upTo - 50))
      }
    } catch (err) {
      this.error = err instanceof Error ? err.message : String(err)
      this.tell()
      await new Promise(done => setTimeout(done, 1500))
    } finally {
      this.extending = false
      if (!this.dead) this.draw()
    }
  }

  private shrink(end: 'top' | 'bottom'): void {
    const at = this.win.entries[this.place.index]?.first ?? this.placeSeq
    this.win.trim(end, this.follow ? Number.MAX_SAFE_INTEGER : at - 800, at + 800)
  }

  // Input.

  private readonly touched = (): void => {
    this.settling = 0
    this.userAt = performance.now()
  }

  private readonly onWheel = (e: WheelEvent): void => {
    this.touched()
    if (e.deltaY < 0 && this.scrollable) this.letGo()
  }

  private get scrollable(): boolean {
    return this.root.scrollHeight > this.root.clientHeight + 1
  }

  private readonly onDown = (e: MouseEvent): void => {
    this.settling = 0
    const box = this.root.getBoundingClientRect()
    if (e.clientX - box.left >= this.root.clientLeft + this.root.clientWidth) this.dragging = true
  }

  private readonly onUp = (): void => {
    if (!this.dragging) return
    this.dragging = false
    this.draw()
  }

  private readonly onMove = (e: MouseEvent): void => {
    if (this.dragging && e.buttons === 0) this.onUp()
  }

  private readonly onScroll = (): void => {
    const at = this.root.scrollTop
    const by = at - this.scrolledTo
    if (Math.abs(by) < 1) return
    if (this.root.clientHeight !== this.drawnView || performance.now() < this.settling) {
      // The browser moved the scroll bar, because of a resize or smooth
      // scrolling.
      this.scrolledTo = at
      this.draw()
      return
    }
    this.scrolledTo = at
    this.userAt = performance.now()
    const view = this.root.clientHeight
    if (by < 0) this.letGo()
    if (this.dragging || Math.abs(by) > 2.5 * view) this.jump(at)
    else this.place = move(this.place, by, this.win.entries.length, this.height)
    if (
      by > 0 &&
      this.win.upTo >= this.last &&
      reached(this.place, endPlace(this.win.entries.length, view, this.height), 2)
    ) {
      this.follow = true
    }
    this.note()
    this.draw()
    // The scroll bar is corrected once the user stops scrolling.
    clearTimeout(this.idle)
    this.idle = window.setTimeout(() => this.draw(), 160)
  }

  /** Goes to the position of a dragged scroll bar. */
  private jump(at: number): void {
    const view = this.root.clientHeight
    const limit = this.root.scrollHeight - view
    if (at >= limit - 1) {
      this.follow = true
      this.seenLast = this.last
      void this.toEnd()
      return
    }
    const total = this.total()
    const top = fromScroll(at, total, rowHeight, view)
    if (this.whole) {
      let px = top * rowHeight
      let i = 0
      const n = this.win.entries.length
      while (i < n - 1 && px >= this.height(i)) px -= this.height(i++)
      this.place = { index: i, offset: px }
      return
    }
    const seq = Math.floor(top) + 1
    if (seq > this.win.after && seq <= this.win.upTo) {
      this.place = { index: entryOf(this.win.entries, seq), offset: 0 }
      return
    }
    const was = this.wanted
    this.wanted = seq
    if (was === undefined) void this.chase()
  }

  /** Loads the lines at the scroll bar, and repeats while it moves. */
  private async chase(): Promise<void> {
    while (this.wanted !== undefined && !this.dead) {
      const seq = this.wanted
      const ok = await this.loadAround(seq)
      if (ok) {
        this.place = { index: entryOf(this.win.entries, seq), offset: 0 }
        this.note()
        this.draw()
      }
      if (this.wanted === seq) this.wanted = undefined
    }
  }

  private readonly onClick = (e: MouseEvent): void => {
    const target = e.target as HTMLElement
    const n = target.closest<HTMLElement>('.lv-n')
    if (n) {
      e.preventDefault()
      this.o.clicked(Number(n.textContent), e.shiftKey)
      return
    }
    const b = target.closest<HTMLElement>('[data-open]')
    if (!b) return
    const key = b.dataset.open!
    if (!this.opened.delete(key)) this.opened.add(key)
    const seq = Number(key.split('.', 1)[0])
    const entry = this.win.entries[entryOf(this.win.entries, seq)]
    if (entry) {
      entry.version++
      entry.height = 0
      // The clicked element keeps its position, also at the end of the log.
      if (this.opened.has(key)) this.letGo()
    }
    this.draw()
    this.now()
    this.root.querySelector<HTMLElement>(`[data-open="${CSS.escape(key)}"]`)?.focus({ preventScroll: true })
  }

  // Drawing.

  private note(): void {
    this.placeSeq = this.win.entries[this.place.index]?.first ?? this.placeSeq
  }

  /** Reports whether the window is higher than the view. */
  private get filled(): boolean {
    let sum = 0
    for (let i = 0; i < this.win.entries.length; i++) if ((sum += this.height(i)) >= this.root.clientHeight) return true
    return false
  }

  /** Reports whether the window holds the complete log. */
  private get whole(): boolean {
    return this.win.after === 0 && this.win.upTo >= this.last
  }

  private readonly height = (i: number): number => {
    const e = this.win.entries[i]
    if (!e) return rowHeight
    if (e.height > 0) return e.height
    if (e.items) return 44
    if (!this.wrap) return rowHeight
    return rowHeight * Math.max(1, Math.ceil((e.text.length * 7.4) / Math.max(100, this.root.clientWidth - 140)))
  }

  /** Returns the height of the log in rows; exact if the window is complete. */
  private total(): number {
    if (!this.whole) return this.last
    let sum = 0
    for (let i = 0; i < this.win.entries.length; i++) sum += this.height(i)
    return sum / rowHeight
  }

  private top(): number {
    const e = this.win.entries[this.place.index]
    if (!e) return 0
    if (this.whole) {
      let sum = this.place.offset
      for (let i = 0; i < this.place.index; i++) sum += this.height(i)
      return sum / rowHeight
    }
    return e.first - 1 + this.place.offset / this.height(this.place.index)
  }

  private remeasure(): void {
    for (const e of this.win.entries) e.height = 0
  }

  private redraw(): void {
    this.remeasure()
    this.mounted.clear()
    this.rows.replaceChildren()
    this.draw()
  }

  /** Schedules drawing for the next frame. */
  draw(): void {
    if (this.frame || this.dead) return
    this.frame = requestAnimationFrame(() => this.now())
  }

  private now(): void {
    cancelAnimationFrame(this.frame)
    this.frame = 0
    const view = this.root.clientHeight
    if (view === 0 || this.dead) return
    if (this.generation !== this.win.generation) {
      this.generation = this.win.generation
      const index = entryOf(this.win.entries, this.placeSeq)
      const same = this.win.entries[index]?.first === this.placeSeq
      this.place = { index, offset: same ? this.place.offset : 0 }
    }
    this.drawnView = view
    const entries = this.win.entries
    const atEnd = this.win.upTo >= this.last
    for (let pass = 0; pass < 4; pass++) {
      const end = endPlace(entries.length, view, this.height)
      if (this.follow || (atEnd && reached(this.place, end, 0))) this.place = end
      let y = -this.place.offset
      let to = this.place.index
      while (to < entries.length && y < view + 2 * rowHeight) y += this.height(to++)
      this.mount(this.place.index, to)
      if (!this.measure(this.place.index, to)) break
    }
    this.note()
    this.rows.style.transform = `translateY(${-Math.round(this.place.offset)}px)`
    this.bar(view)
    this.paint()
    this.tell()
    void this.extend()
  }

  private mount(from: number, to: number): void {
    const keep = new Map<Entry, Mounted>()
    let at: ChildNode | null = this.rows.firstChild
    for (let i = from; i < to; i++) {
      const e = this.win.entries[i]!
      let m = this.mounted.get(e)
      if (m && m.version !== e.version) {
        if (at === m.el) at = at.nextSibling
        m.el.remove()
        m = undefined
      }
      m ??= { el: draw(e, this.look, this.opened), version: e.version }
      keep.set(e, m)
      const chosen = this.chosen && e.last >= this.chosen[0] && e.first <= this.chosen[1]
      m.el.classList.toggle('lv-chosen', !!chosen)
      m.el.classList.toggle('lv-hit', this.hit >= e.first && this.hit <= e.last)
      // Remove rows above the view first, so that the remaining rows do not move.
      while (at && at !== m.el && at instanceof HTMLElement && Number(at.dataset.seq) < e.first) {
        const gone = at
        at = at.nextSibling
        gone.remove()
      }
      if (at === m.el) at = at.nextSibling
      else this.rows.insertBefore(m.el, at)
    }
    while (at) {
      const gone = at
      at = at.nextSibling
      gone.remove()
    }
    this.mounted = keep
  }

  /** Measures rows without a fixed height. Returns true if an estimate was wrong. */
  private measure(from: number, to: number): boolean {
    let changed = false
    for (let i = from; i < to; i++) {
      const e = this.win.entries[i]!
      if (e.height > 0 || (!this.wrap && !e.items && !this.opened.size)) continue
      const was = this.height(i)
      e.height = this.mounted.get(e)!.el.offsetHeight || was
      if (Math.abs(e.height - was) >= 1) changed = true
    }
    return changed
  }

  private bar(view: number): void {
    const total = this.total()
    this.track.style.height = `${trackHeight(total, rowHeight, view)}px`
    this.layer.style.height = `${view}px`
    if (!this.wrap) {
      this.widest = Math.max(this.widest, this.rows.scrollWidth)
      this.track.style.minWidth = `${this.widest}px`
    } else {
      this.track.style.minWidth = ''
    }
    const rested = performance.now() - this.userAt > 150
    if (
      this.dragging ||
      (!rested && !this.follow && this.scrolledTo > 0 && this.scrolledTo < this.root.scrollHeight - view - 1)
    )
      return
    const want =
      this.follow && this.win.upTo >= this.last
        ? this.root.scrollHeight - view
        : toScroll(this.top(), total, rowHeight, view)
    if (Math.abs(this.root.scrollTop - want) > 1) this.root.scrollTop = want
    this.scrolledTo = this.root.scrollTop
  }

  /** Highlights matches in the visible rows. */
  private paint(): void {
    if (!('highlights' in CSS)) return
    if (!this.pattern) {
      CSS.highlights.delete('lv-found')
      return
    }
    const found: Range[] = []
    for (const { el } of this.mounted.values()) {
      const walk = document.createTreeWalker(el.querySelector('.lv-x') ?? el, NodeFilter.SHOW_TEXT)
      for (let node = walk.nextNode(); node && found.length < 500; node = walk.nextNode()) {
        const text = (node.nodeValue ?? '').slice(0, 20_000)
        for (const m of text.matchAll(this.pattern)) {
          if (m[0] === '' || found.length >= 500) break
          const r = document.createRange()
          r.setStart(node, m.index)
          r.setEnd(node, m.index + m[0].length)
          found.push(r)
        }
      }
    }
    CSS.highlights.set('lv-found', new Highlight(...found))
  }

  private tell(): void {
    this.o.changed({
      last: this.last,
      top: this.win.entries[this.place.index]?.first ?? 0,
      follow: this.follow,
      fresh: this.follow ? 0 : Math.max(0, this.last - this.seenLast),
      loading: this.loading,
      error: this.error,
    })
  }
}
