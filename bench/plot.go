//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// plot is a chart of how a figure scales; both axes are logarithmic.
type plot struct {
	key, file, title, x, y string
	linear                 bool // the y axis is linear
}

var plots = []plot{
	{"readers.cpu", "readers-cpu.svg", "Deliveries per CPU-second, 20 lines/s to all readers", "readers", "deliveries per CPU-second", false},
	{"readers.idle", "readers-memory.svg", "Server memory per idle reader", "readers", "KiB per reader", true},
	{"readers.p99", "readers-latency.svg", "Line printed to line read, p99", "readers", "ms", false},
	{"history.list", "history-api.svg", "Answers of the API, p99", "executions in history", "ms", true},
	{"history.start", "history-start.svg", "kill -9 to ready", "executions in history", "ms", true},
	{"running.server", "running-memory.svg", "Server memory (RSS)", "executions at once", "MiB", true},
	{"running.cpu", "running-cpu.svg", "Server CPU, each execution prints a line a second", "executions at once", "% of a core", true},
}

const (
	plotWidth, plotHeight                     = 640, 360
	plotLeft, plotRight, plotTop, plotBottom  = 70, 20, 40, 50
	colorOurs, colorFirstPeer, colorOtherPeer = "#2563eb", "#d97706", "#6b7280"
)

// draw returns the chart as SVG, or "" without points.
func (p plot) draw(series map[string][][2]float64) string {
	var names []string
	lowX, highX, highY, lowY := math.Inf(1), 0.0, 0.0, math.Inf(1)
	for name, points := range series {
		names = append(names, name)
		for _, pt := range points {
			lowX, highX = min(lowX, pt[0]), max(highX, pt[0])
			lowY, highY = min(lowY, pt[1]), max(highY, pt[1])
		}
	}
	if len(names) == 0 || highY <= 0 {
		return ""
	}
	slices.Sort(names)
	if highX <= lowX {
		highX = lowX * 10
	}
	lowY = max(lowY, highY/1e6)
	lowY, highY = math.Pow(10, math.Floor(math.Log10(lowY))), highY*1.15
	if p.linear {
		lowY = 0
	}
	w, h := float64(plotWidth-plotLeft-plotRight), float64(plotHeight-plotTop-plotBottom)
	x := func(v float64) float64 { return plotLeft + w*math.Log(v/lowX)/math.Log(highX/lowX) }
	y := func(v float64) float64 {
		if p.linear {
			return plotTop + h*(1-v/highY)
		}
		return plotTop + h*(1-math.Log(max(v, lowY)/lowY)/math.Log(highY/lowY))
	}
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&s, `<rect width="100%%" height="100%%" fill="#fff"/><text x="%d" y="22" font-size="14">%s</text>`+"\n", plotLeft, html.EscapeString(p.title))
	for _, v := range marks(lowY, highY, p.linear) {
		fmt.Fprintf(&s, `<path d="M%d %.1fH%d" stroke="#e5e7eb"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", plotLeft, y(v), plotWidth-plotRight, plotLeft-6, y(v)+4, label(v))
	}
	for _, v := range marks(lowX, highX, false) {
		fmt.Fprintf(&s, `<path d="M%.1f %dV%d" stroke="#e5e7eb"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(v), plotTop, plotHeight-plotBottom, x(v), plotHeight-plotBottom+18, label(v))
	}
	fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotWidth-plotRight, plotHeight-12, html.EscapeString(p.x))
	fmt.Fprintf(&s, `<text x="14" y="%d" transform="rotate(-90 14 %d)" text-anchor="end">%s</text>`+"\n", plotTop, plotTop, html.EscapeString(p.y))
	peers := []string{colorFirstPeer, colorOtherPeer}
	for i, name := range names {
		color := colorOurs
		if name != us && len(names) > 1 && i > 0 {
			color = peers[(i-1)%2]
			if name == nchan {
				color = colorFirstPeer
			} else if name == gevent {
				color = colorOtherPeer
			}
		}
		points := slices.Clone(series[name])
		slices.SortFunc(points, func(a, b [2]float64) int { return int(math.Copysign(1, a[0]-b[0])) })
		var d strings.Builder
		for j, pt := range merge(points) {
			fmt.Fprintf(&d, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[j == 0], x(pt[0]), y(pt[1]))
			fmt.Fprintf(&s, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(pt[0]), y(pt[1]), color)
		}
		fmt.Fprintf(&s, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", d.String(), color)
		fmt.Fprintf(&s, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", plotLeft+10+i*170, plotHeight-12, color, html.EscapeString(name))
	}
	s.WriteString("</svg>\n")
	return s.String()
}

// merge replaces points with the same x by one point with their median.
func merge(points [][2]float64) [][2]float64 {
	var out [][2]float64
	for i := 0; i < len(points); {
		var same []float64
		j := i
		for ; j < len(points) && points[j][0] == points[i][0]; j++ {
			same = append(same, points[j][1])
		}
		out = append(out, [2]float64{points[i][0], median(same)})
		i = j
	}
	return out
}

// marks returns round numbers between low and high.
func marks(low, high float64, linear bool) []float64 {
	var out []float64
	if linear {
		step := math.Pow(10, math.Floor(math.Log10(high/3)))
		for high/step > 8 {
			step *= 2
		}
		for v := 0.0; v <= high; v += step {
			out = append(out, v)
		}
		return out
	}
	for v := math.Pow(10, math.Floor(math.Log10(low))); v <= high*1.001; v *= 10 {
		for _, m := range []float64{1, 3} {
			if v*m >= low*0.999 && v*m <= high*1.001 {
				out = append(out, v*m)
			}
		}
	}
	return out
}

func label(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", math.Round(v/1e5)/10)
	case v >= 1000:
		return fmt.Sprintf("%gk", math.Round(v/100)/10)
	}
	return fmt.Sprintf("%g", math.Round(v*1000)/1000)
}
