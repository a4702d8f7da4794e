package sheets

import (
	"context"
	"math/rand/v2"
	"slices"

	api "google.golang.org/api/sheets/v4"

	"leadpipe/internal/outcome"
)

// addTabs makes tabs that are missing: with as many columns as we have, since empty ones
// count towards Google's limit too, a header that stays on top when a person sorts, a
// filter, and formats by which dates and amounts read as such.
func (w *Writer) addTabs(ctx context.Context, missing []int) error {
	var plain, dressed []*api.Request
	for _, t := range missing {
		id := rand.Int64N(1<<31-1) + 1
		add := &api.Request{AddSheet: &api.AddSheetRequest{Properties: &api.SheetProperties{SheetId: id, Title: tabs[t].title,
			GridProperties: &api.GridProperties{RowCount: spareRows, ColumnCount: int64(len(tabs[t].columns)), FrozenRowCount: 1}}}}
		plain = append(plain, add)
		dressed = append(append(dressed, add), looks(t, id)...)
	}
	err := w.client.change(ctx, dressed...)
	if outcome.Of(err).Kind == outcome.KindPermanent && err != nil {
		err = w.client.change(ctx, plain...) // better plain than not at all
	}
	return asMoved(err) // refused when somebody else was faster
}

// form brings tabs, headers and columns into form, and says whether they are: then pages
// has them, without rows.
func (w *Writer) form(ctx context.Context, l listing) (pages *[numTabs]*page, ok bool, err error) {
	pages = &[numTabs]*page{}
	var missing []int
	for t := range tabs {
		s, found := l.tab(t)
		if !found {
			missing = append(missing, t)
			continue
		}
		pages[t] = &page{tab: t, sheet: s, at: map[string]int{}}
	}
	if len(missing) > 0 {
		if !w.client.holds(l) {
			return nil, false, w.client.take(ctx, l)
		}
		return nil, false, w.addTabs(ctx, missing)
	}
	if err := w.client.awaitWrite(ctx); err != nil {
		return nil, false, err
	}
	heads, err := w.heads(ctx, pages)
	if err != nil {
		return nil, false, asMoved(err)
	}
	var shape []*api.Request
	var fixes []edit
	for t, p := range pages {
		lay, fix, insert, err := w.locate(ctx, p, heads[t])
		if err != nil {
			return nil, false, err
		}
		p.layout = lay
		var change []*api.Request
		if insert != "" {
			change = append(change, &api.Request{InsertDimension: &api.InsertDimensionRequest{
				Range: &api.DimensionRange{SheetId: p.sheet.id, Dimension: insert, EndIndex: 1, ForceSendFields: []string{"SheetId", "StartIndex"}},
			}})
		} else {
			change = grow(p.sheet, lay.head+1, lay.last()+1, l.cells)
		}
		said := w.closed[t]
		if len(change)+len(fix) > 0 && said == "" && (p.sheet.whole() || slices.ContainsFunc(fix, func(e edit) bool { return p.sheet.isLocked(e.row, e.at[0]) })) {
			said = protectedWords
		}
		if len(change)+len(fix) > 0 && said != "" {
			w.hitTab(t, said)
			pages[t] = nil
			continue
		}
		shape = append(shape, change...)
		if insert == "" {
			fixes = append(fixes, fix...)
		}
	}
	switch {
	case len(shape)+len(fixes) == 0:
		return pages, true, nil
	case !w.client.holds(l):
		return nil, false, w.client.take(ctx, l)
	case len(shape) > 0:
		return nil, false, w.changeEach(ctx, pages, shape)
	}
	var old [numTabs]bool // those that have anything yet
	for t := range heads {
		old[t] = len(heads[t]) > 0
	}
	return nil, false, w.putHeadings(ctx, pages, fixes, old)
}

// heads reads the upper rows of all tabs. A header that is further below, because a
// person has sorted it in, is looked for in all rows.
func (w *Writer) heads(ctx context.Context, pages *[numTabs]*page) (heads [numTabs][][]string, err error) {
	areas := make([]string, numTabs)
	for t, p := range pages {
		areas[t] = p.sheet.area(block{0, 0, min(headRows, p.sheet.rows), p.sheet.cols})
	}
	grids, err := w.client.get(ctx, areas)
	if err != nil {
		return heads, err
	}
	copy(heads[:], grids)
	for t, p := range pages {
		if head, _ := findHeader(t, heads[t]); head >= 0 || len(heads[t]) < headRows {
			continue
		}
		for from := headRows; from < p.sheet.rows; from += sliceRows {
			more, err := w.client.get(ctx, []string{p.sheet.area(block{from, 0, min(from+sliceRows, p.sheet.rows), p.sheet.cols})})
			if err != nil {
				return heads, err
			}
			if head, _ := findHeader(t, more[0]); head >= 0 {
				for len(heads[t]) < from {
					heads[t] = append(heads[t], nil)
				}
				heads[t] = append(heads[t], more[0][:head+1]...)
				break
			}
			if len(more[0]) == 0 {
				break
			}
		}
	}
	return heads, nil
}

// locate finds a tab's columns, with the help of what is in them and right of them
// where that is needed.
func (w *Writer) locate(ctx context.Context, p *page, rows [][]string) (lay layout, fix []edit, insert string, err error) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r))
	}
	choose := func(head, i int, among []int) int {
		return nearest(p.tab, i, rows[head], among, w.contents(ctx, p.tab, rows, head, i, among))
	}
	covered := p.sheet.covered
	lay, fix, insert = locate(p.tab, rows, width, covered, choose)
	if len(fix) == 0 || width >= p.sheet.cols || len(rows) == 0 {
		return lay, fix, insert, nil
	}
	// Where everything that anybody uses ends, further below too.
	right, err := w.client.get(ctx, []string{p.sheet.area(block{0, width, p.sheet.rows, p.sheet.cols})})
	if err != nil {
		return lay, nil, "", asMoved(err)
	}
	more := 0
	for _, r := range right[0] {
		more = max(more, len(r))
	}
	lay, fix, insert = locate(p.tab, rows, width+more, covered, choose)
	return lay, fix, insert, nil
}

// contents says of several columns with the same heading how much of what is in them is
// what should be in ours: the rows below the header tell.
func (w *Writer) contents(ctx context.Context, t int, rows [][]string, head, i int, among []int) map[int]content {
	out := map[int]content{}
	body := rows[head+1:]
	at := func(row []string, c int) string {
		if c >= 0 && c < len(row) {
			return row[c]
		}
		return ""
	}
	var keys []string
	for c, h := range rows[head] {
		if h != tabs[t].columns[0].name {
			continue
		}
		for _, row := range body {
			if k := at(row, c); k != "" {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) == 0 {
		return out
	}
	slices.Sort(keys)
	should, err := w.read(ctx, t, slices.Compact(keys))
	if err != nil {
		return out // the neighbours decide
	}
	for _, c := range among {
		is := content{}
		for _, row := range body {
			if i == 0 {
				if should[at(row, c)] != nil {
					is.right++
				}
				continue
			}
			for k, h := range rows[head] {
				cells := should[at(row, k)]
				if h != tabs[t].columns[0].name || cells == nil {
					continue
				}
				switch got := tabs[t].columns[i].kind.shown(at(row, c)); {
				case got == "":
				case got == w.shows(t, cells)[i]:
					is.right++
				default:
					is.other++
				}
			}
		}
		out[c] = is
	}
	return out
}

// changeEach changes the form of several tabs at once, or, where Google turns that down,
// of each by itself.
func (w *Writer) changeEach(ctx context.Context, pages *[numTabs]*page, shape []*api.Request) error {
	err := w.client.change(ctx, shape...)
	if err == nil || outcome.Of(err).Kind != outcome.KindPermanent {
		return err
	}
	for t, p := range pages {
		if p == nil {
			continue
		}
		own := slices.DeleteFunc(slices.Clone(shape), func(r *api.Request) bool { return sheetOf(r) != p.sheet.id })
		if len(own) == 0 {
			continue
		}
		if err := w.client.change(ctx, own...); err != nil {
			if outcome.Of(err).Kind != outcome.KindPermanent {
				return err
			}
			w.closed[t] = words(err)
		}
	}
	return nil
}

// sheetOf is the sheet that a request of ours is about.
func sheetOf(r *api.Request) int64 {
	switch {
	case r.InsertDimension != nil:
		return r.InsertDimension.Range.SheetId
	case r.AppendDimension != nil:
		return r.AppendDimension.SheetId
	case r.RepeatCell != nil:
		return r.RepeatCell.Range.SheetId
	}
	return -1
}

// putHeadings writes header cells, a tab at a time where Google turns them down together.
func (w *Writer) putHeadings(ctx context.Context, pages *[numTabs]*page, fixes []edit, old [numTabs]bool) error {
	err := w.client.put(ctx, ranges(pages, fixes))
	if err == nil {
		// Columns that are new on a tab that exists: their numbers are to read as dates.
		for t, p := range pages {
			if p == nil || !old[t] {
				continue
			}
			var added []int
			for _, e := range fixes {
				if e.id.tab == t {
					added = append(added, e.at[0])
				}
			}
			w.dress(ctx, p, added)
		}
		return nil
	}
	if outcome.Of(err).Kind != outcome.KindPermanent {
		return err
	}
	for t := range pages {
		own := slices.DeleteFunc(slices.Clone(fixes), func(e edit) bool { return e.id.tab != t })
		if len(own) == 0 {
			continue
		}
		if err := w.client.put(ctx, ranges(pages, own)); err != nil {
			if outcome.Of(err).Kind != outcome.KindPermanent {
				return err
			}
			w.closed[t] = words(err)
		}
	}
	return nil
}

// enter takes over what a listing says of the spreadsheet as a whole.
func (w *Writer) enter(l listing) {
	w.setZone(l.zone)
	w.cells = l.cells
	w.hitSize(l.cells)
}
