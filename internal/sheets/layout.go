package sheets

import (
	"cmp"
	"slices"
	"strings"
)

// A layout is where a tab's header and columns are. A person may have inserted
// columns between ours, or rows above the header.
type layout struct {
	head int   // the header's row, from 0
	at   []int // the place of each of the tab's columns, from 0
}

func (l layout) last() int { return slices.Max(l.at) }

// headRows is how many rows at the top of a tab are looked through for its header.
const headRows = 30

// findHeader gives the row that has most of a tab's headings, and more than half of
// them; -1: none.
func findHeader(t int, grid [][]string) (head int, found int) {
	// A sheet of the first release has fewer columns.
	names := tabs[t].names()
	enough := min(len(names), tabs[t].mark+1) / 2
	head = -1
	for r, row := range grid {
		n := 0
		for _, name := range names {
			if slices.Contains(row, name) {
				n++
			}
		}
		if n > found && n > enough {
			head, found = r, n
		}
	}
	return head, found
}

// locate finds the header and the columns in the upper rows of a tab. width is the number
// of columns that anybody uses. covered are header cells that keep nothing. choose picks
// one of several columns that bear the same heading. fix are the header cells to write
// where some are missing. insert asks for a row or a column at the very beginning first,
// since the place of the header or of the key is taken: "ROWS", "COLUMNS" or "".
func locate(t int, grid [][]string, width int, covered func(row, col int) bool, choose func(head, column int, among []int) int) (lay layout, fix []edit, insert string) {
	names := tabs[t].names()
	head, _ := findHeader(t, grid)
	best := head >= 0
	if head < 0 {
		if len(grid) > 0 && strings.Join(grid[0], "") != "" {
			return layout{}, nil, "ROWS"
		}
		head = 0
	}
	lay = layout{head: head, at: make([]int, len(names))}
	var row []string
	if head < len(grid) {
		row = grid[head]
	}
	heading := func(c int) string {
		if c < len(row) {
			return row[c]
		}
		return ""
	}
	for i, name := range names {
		lay.at[i] = slices.Index(row, name)
		var among []int
		for c, h := range row {
			if h == name {
				among = append(among, c)
			}
		}
		if len(among) > 1 {
			lay.at[i] = choose(head, i, among)
		}
	}
	if lay.at[0] < 0 && slices.Contains(names, heading(0)) {
		return layout{}, nil, "COLUMNS"
	}
	for i := range names {
		if lay.at[i] >= 0 {
			continue
		}
		// Its heading was changed when the place is where it should be, between its
		// neighbours. Otherwise the column was deleted: it goes to the far right, where
		// nothing of anybody's is.
		natural := 0
		if i > 0 {
			natural = lay.at[i-1] + 1
		}
		next := i + 1
		for next < len(names) && lay.at[next] < 0 {
			next++
		}
		switch free := !slices.Contains(lay.at, natural) && !covered(head, natural); {
		case i == 0 && !covered(head, 0), free && natural >= width:
			lay.at[i] = natural
		case free && next < len(names) && lay.at[next] == natural+next-i:
			lay.at[i] = natural
		case free && heading(natural) == "" && !best:
			lay.at[i] = natural // the whole header was missing
		default:
			lay.at[i] = width
			for covered(head, lay.at[i]) {
				lay.at[i]++
			}
		}
		width = max(width, lay.at[i]+1)
		fix = append(fix, edit{id: rowID{tab: t}, row: head, at: lay.at[i : i+1], values: []any{names[i]}})
	}
	return lay, fix, ""
}

// content is what the cells of a column say of whether it is ours: how many show what
// they should, and how many something else. A column of ours may show something else
// too: what its records said before they changed.
type content struct{ right, other int }

// nearest picks, of several columns with the heading of a tab's column i, the one that
// shows most of what is ours; between equals the one whose neighbours are our neighbours,
// then the one that shows least of anything else, then the one on the right, since a
// person's copy was put where there was nothing of ours yet.
func nearest(t, i int, row []string, among []int, shows map[int]content) int {
	names := tabs[t].names()
	heading := func(c int) string {
		if c >= 0 && c < len(row) {
			return row[c]
		}
		return ""
	}
	// beside says whether a column stands beside our column k; beside the first and the last
	// on the outer side there is none of ours.
	beside := func(c, k int) bool {
		if k < 0 || k == len(names) {
			return !slices.Contains(names, heading(c))
		}
		return heading(c) == names[k]
	}
	neighbours := func(c int) (n int) {
		if beside(c-1, i-1) {
			n++
		}
		if beside(c+1, i+1) {
			n++
		}
		return n
	}
	return slices.MaxFunc(among, func(a, b int) int {
		return cmp.Or(shows[a].right-shows[b].right, neighbours(a)-neighbours(b), shows[b].other-shows[a].other, a-b)
	})
}
