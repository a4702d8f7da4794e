package google

import (
	"fmt"
	"math/rand/v2"
)

// The methods of this file are what a person does in the browser, with the first
// spreadsheet of Options. Rows and columns count from 1, as on the screen; a text is
// taken as if typed. They meet no quota, no fault and no hook. An error means that there
// is no such tab, row or column, or that Sheets would refuse.

// Tabs lists the titles from left to right.
func (s *Server) Tabs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, g := range s.first().sheets {
		out = append(out, g.title)
	}
	return out
}

// Rows is a tab as a person sees it, the header first, without empty rows and cells at
// the ends. A tab that does not exist has none.
func (s *Server) Rows(tab string) [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.first().tab(tab)
	if g == nil {
		return nil
	}
	values := g.read(area{0, 0, g.rows, g.cols}, reading{}).Values
	out := make([][]string, len(values))
	for i, line := range values {
		out[i] = make([]string, len(line))
		for j, v := range line {
			out[i][j], _ = v.(string) // formatted values are all strings
		}
	}
	return out
}

// SetCell types a text into a cell; "" empties it.
func (s *Server) SetCell(tab string, row, column int, text string) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		if row < 1 || row > g.rows || column < 1 || column > g.cols {
			return outside("cell", row, column)
		}
		g.put(row-1, column-1, []any{typed(text)})
		return nil
	})
}

// SortBy sorts the rows below the header.
func (s *Server) SortBy(tab string, column int, descending bool) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		if column < 1 || column > g.cols {
			return outside("column", column)
		}
		if len(g.merges) > 0 {
			return errMergedSort
		}
		g.sort(area{1, 0, g.rows, g.cols}, sorting{column - 1, descending})
		return nil
	})
}

// Shuffle puts the rows below the header in a random order.
func (s *Server) Shuffle(tab string, rng *rand.Rand) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		if len(g.merges) > 0 {
			return errMergedSort
		}
		rows, cols := g.used()
		g.permute(area{1, 0, rows, cols}, func(lines [][]any) {
			rng.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		})
		return nil
	})
}

// InsertRow makes an empty row that is then row at.
func (s *Server) InsertRow(tab string, at int) error {
	return s.edit(tab, func(b *book, g *grid) error {
		if at < 1 || at > g.rows+1 {
			return outside("row", at)
		}
		if err := b.room(g.cols); err != nil {
			return err
		}
		b.insert(g, rowsDimension, at-1, 1)
		return nil
	})
}

// DeleteRow deletes a row; those below move up.
func (s *Server) DeleteRow(tab string, at int) error {
	return s.edit(tab, func(b *book, g *grid) error {
		if at < 1 || at > g.rows || g.rows-g.frozenRows == 1 && at > g.frozenRows {
			return outside("row", at)
		}
		b.delete(g, rowsDimension, at-1, at)
		return nil
	})
}

// InsertColumn makes an empty column that is then column at.
func (s *Server) InsertColumn(tab string, at int) error {
	return s.edit(tab, func(b *book, g *grid) error {
		if at < 1 || at > g.cols+1 {
			return outside("column", at)
		}
		if err := b.room(g.rows); err != nil {
			return err
		}
		b.insert(g, columnsDimension, at-1, 1)
		return nil
	})
}

// AddColumn writes a header into the first column that is empty, right of all others,
// and gives that column's number.
func (s *Server) AddColumn(tab, header string) (column int, err error) {
	err = s.edit(tab, func(b *book, g *grid) error {
		_, cols := g.used()
		if cols == g.cols {
			if err := b.room(g.rows); err != nil {
				return err
			}
			b.insert(g, columnsDimension, cols, 1)
		}
		column = cols + 1
		g.put(0, cols, []any{typed(header)})
		return nil
	})
	return column, err
}

// Clear empties all cells of a tab.
func (s *Server) Clear(tab string) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		g.clear(area{0, 0, g.rows, g.cols})
		return nil
	})
}

// DeleteTab deletes a tab with all that is in it; the last one stays.
func (s *Server) DeleteTab(tab string) error {
	return s.edit(tab, func(b *book, g *grid) error { return b.remove(g) })
}

func (s *Server) first() *book { return s.books[s.opt.Spreadsheets[0]] }

func (s *Server) edit(tab string, do func(*book, *grid) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.first()
	g := b.tab(tab)
	if g == nil {
		return fmt.Errorf("google stand-in: no tab %q", tab)
	}
	return do(b, g)
}

func outside(what string, at ...int) error {
	return fmt.Errorf("google stand-in: no %s %v here", what, at)
}
