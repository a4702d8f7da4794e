package google

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// An area is a rectangle of a grid, ends excluded, counted from 0.
type area struct{ row, col, endRow, endCol int }

// A place is a range of a request, found in a spreadsheet. The area may end beyond
// the grid where the request said so.
type place struct {
	grid *grid
	area area
	cell bool // a single cell, where a write begins rather than ends
}

var (
	reference  = regexp.MustCompile(`^\$?([A-Za-z]{0,3})\$?([1-9][0-9]{0,7})?(?:(:)\$?([A-Za-z]{0,3})\$?([1-9][0-9]{0,7})?)?$`)
	cellLike   = regexp.MustCompile(`^[A-Za-z]{1,3}[0-9]+$`)
	plainTitle = regexp.MustCompile(`^[\pL_][\pL\pN_]*$`)
)

// find parses A1 notation: 'Title'!A1:B2, Title!A:A, A2:C, 2:5, Title. Titles are told
// apart without regard to letter case, as Sheets does; without one the first tab is meant.
// A name that is no title's may be a named range's.
func (b *book) find(s string) (place, error) {
	title, ref, ok := splitA1(s)
	if !ok {
		return place{}, bad("Unable to parse range: %s", s)
	}
	g := b.sheets[0]
	if title != "" {
		if g = b.tab(title); g == nil {
			if i := b.named(func(n named) bool { return ref == "" && strings.EqualFold(n.name, title) }); i >= 0 {
				return place{grid: b.byID(b.names[i].sheet), area: b.names[i].area}, nil
			}
			return place{}, bad("Unable to parse range: %s", s)
		}
	}
	p := place{grid: g, area: area{0, 0, g.rows, g.cols}}
	if ref == "" {
		return p, nil
	}
	m := reference.FindStringSubmatch(ref)
	if m == nil || m[1]+m[2] == "" || m[3] == "" && (m[1] == "" || m[2] == "") || m[3] != "" && m[4]+m[5] == "" {
		return place{}, bad("Unable to parse range: %s", s)
	}
	if m[3] == "" {
		p.cell, m[4], m[5] = true, m[1], m[2]
	}
	a := &p.area
	if m[1] != "" {
		a.col = columnIndex(m[1])
	}
	if m[2] != "" {
		a.row = rowIndex(m[2])
	}
	if m[4] != "" {
		a.endCol = columnIndex(m[4]) + 1
	}
	if m[5] != "" {
		a.endRow = rowIndex(m[5]) + 1
	}
	if m[4] != "" && a.endCol <= a.col { // B2:A1 is A1:B2
		a.col, a.endCol = a.endCol-1, a.col+1
	}
	if m[5] != "" && a.endRow <= a.row {
		a.row, a.endRow = a.endRow-1, a.row+1
	}
	if a.row >= g.rows || a.col >= g.cols {
		a.endRow, a.endCol = max(a.endRow, a.row+1), max(a.endCol, a.col+1)
		return place{}, g.beyond(*a)
	}
	return p, nil
}

// clipped is the part of a range that a read or a clear reaches.
func (p place) clipped() area {
	a := p.area
	a.endRow, a.endCol = min(a.endRow, p.grid.rows), min(a.endCol, p.grid.cols)
	return a
}

// splitA1 gives the title, without quotes, and the reference; either may be empty.
func splitA1(s string) (title, ref string, ok bool) {
	if strings.HasPrefix(s, "'") {
		for i := 1; i < len(s); i++ {
			if s[i] != '\'' {
				continue
			}
			if strings.HasPrefix(s[i:], "''") {
				i++
				continue
			}
			title, rest := strings.ReplaceAll(s[1:i], "''", "'"), s[i+1:]
			ref, cut := strings.CutPrefix(rest, "!")
			return title, ref, title != "" && (rest == "" || cut && ref != "")
		}
		return "", "", false
	}
	if i := strings.LastIndexByte(s, '!'); i >= 0 {
		return s[:i], s[i+1:], i > 0 && i < len(s)-1
	}
	if strings.Contains(s, ":") || cellLike.MatchString(strings.ReplaceAll(s, "$", "")) {
		return "", s, true
	}
	return s, "", s != ""
}

// a1 writes an area with the tab's title, quoted where it must be.
func (g *grid) a1(a area) string {
	title := g.title
	if !plainTitle.MatchString(title) || cellLike.MatchString(title) {
		title = "'" + strings.ReplaceAll(title, "'", "''") + "'"
	}
	first := columnName(a.col) + strconv.Itoa(a.row+1)
	last := columnName(a.endCol-1) + strconv.Itoa(a.endRow)
	if first == last {
		return title + "!" + first
	}
	return title + "!" + first + ":" + last
}

func (g *grid) beyond(a area) error {
	return bad("Range (%s) exceeds grid limits. Max rows: %d, max columns: %d", g.a1(a), g.rows, g.cols)
}

func columnName(c int) string {
	name := ""
	for c++; c > 0; c = (c - 1) / 26 {
		name = string(rune('A'+(c-1)%26)) + name
	}
	return name
}

func columnIndex(name string) int {
	n := 0
	for _, r := range strings.ToUpper(name) {
		n = n*26 + int(r-'A') + 1
	}
	return n - 1
}

// rowIndex takes digits that the reference's pattern has let through.
func rowIndex(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		panic(fmt.Sprintf("row number %q: %v", digits, err))
	}
	return n - 1
}
