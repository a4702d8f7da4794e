package sheets

import (
	"context"
	"slices"
)

// A glance is what one reading shows of a page.
type glance struct {
	lines map[int]*line // by row
	tail  bool          // all below the used rows was read
}

// A piece is one area of a page that is read.
type piece struct {
	page *page
	at   block
}

// look reads, of the tabs that some jobs are about, the headings, the rows of their keys,
// those written last, the last one, and, for new rows, what is below. same says that
// columns and keys are where they were.
func (w *Writer) look(ctx context.Context, jobs []*job) (seen [numTabs]*glance, same bool, err error) {
	var pieces []piece
	for t, p := range w.pages {
		about, fresh, rows := wanted(p, t, jobs)
		if !about {
			continue
		}
		if len(rows) > 0 && rows[len(rows)-1] >= p.sheet.rows {
			return seen, false, nil
		}
		seen[t] = &glance{lines: map[int]*line{}, tail: fresh}
		pieces = append(pieces, p.pieces(rows, fresh)...)
	}
	if len(pieces) == 0 {
		return seen, true, nil
	}
	areas := make([]string, len(pieces))
	for i, piece := range pieces {
		areas[i] = piece.page.sheet.area(piece.at)
	}
	grids, err := w.client.get(ctx, areas)
	if err != nil {
		return seen, false, err
	}
	for i, piece := range pieces {
		if !piece.page.note(seen[piece.page.tab], piece.at, grids[i]) {
			return seen, false, nil
		}
	}
	return seen, true, nil
}

// wanted says whether some jobs are about a page, whether a row is new, and which rows
// have to be looked at, in order.
func wanted(p *page, tab int, jobs []*job) (about, fresh bool, rows []int) {
	for _, j := range jobs {
		if j.id.tab != tab {
			continue
		}
		about = true
		if r, there := p.at[j.id.key]; there {
			rows = append(rows, r)
		} else {
			fresh = fresh || j.cells != nil
		}
	}
	if !about {
		return false, false, nil
	}
	for _, e := range p.unseen {
		rows = append(rows, e.row)
	}
	if fresh && p.used-1 > p.layout.head {
		rows = append(rows, p.used-1)
	}
	slices.Sort(rows)
	return true, fresh, slices.Compact(rows)
}

// pieces are the headings, the given rows, and what is below where rows are new.
func (p *page) pieces(rows []int, fresh bool) []piece {
	all := []piece{{p, block{p.layout.head, 0, p.layout.head + 1, p.sheet.cols}}}
	for i, r := range rows {
		if last := &all[len(all)-1].at; i > 0 && r-last.endRow < runGap {
			last.endRow = r + 1
			continue
		}
		all = append(all, piece{p, block{r, 0, r + 1, p.sheet.cols}})
	}
	if fresh && p.used < p.sheet.rows {
		all = append(all, piece{p, block{p.used, 0, p.sheet.rows, p.sheet.cols}})
	}
	return all
}

// note takes in what was read of an area, and says whether columns and keys are where
// they were.
func (p *page) note(g *glance, b block, grid [][]string) bool {
	if b.row == p.layout.head {
		return p.sameHeadings(grid)
	}
	for r := b.row; r < b.endRow && (b.row < p.used || r-b.row < len(grid)); r++ {
		var row []string
		if r-b.row < len(grid) {
			row = grid[r-b.row]
		}
		l := p.line(row, r)
		if g.lines[r] = l; r < len(p.keys) && p.keys[r] != l.key && !p.sheet.covered(r, p.layout.at[0]) {
			return false
		}
		if b.row >= p.used && l.key != "" && l.key != unchecked {
			return false // a key that we did not know to be there
		}
	}
	return true
}

// shown says whether rows that were written and not looked at since are as they were
// written.
func (w *Writer) shown(p *page, g *glance) bool {
	for _, e := range p.unseen {
		l := g.lines[e.row]
		if l == nil || l.key != e.id.key {
			return false
		}
		for i, c := range e.at {
			k := slices.Index(p.layout.at, c)
			if k > 0 && l.cells[k-1] != tabs[p.tab].columns[k].kind.shown(text(e.values[i])) && !p.sheet.covered(e.row, c) {
				return false
			}
		}
	}
	return true
}
