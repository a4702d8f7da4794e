package google

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	api "google.golang.org/api/sheets/v4"
)

// A format is how the cells of an area look. What it does not say an earlier one says.
type format struct {
	area    area
	kind    string // a number format's type, such as DATE_TIME; empty: not said
	pattern string
	bold    *bool
}

// A table is one of Google's, on a part of a sheet. The stand-in lists it, and keeps
// filters off it.
type table struct {
	id, name string
	area     area
}

// formatAt is the number format of a cell.
func (g *grid) formatAt(row, col int) (kind, pattern string) {
	for _, f := range slices.Backward(g.formats) {
		if f.kind != "" && f.area.has(row, col) {
			return f.kind, f.pattern
		}
	}
	return "", ""
}

// look is a cell as a reading finds it: a number with a date's format is a date.
func (g *grid) look(row, col int) any {
	v := g.get(row, col)
	if f, ok := v.(float64); ok && len(g.formats) > 0 {
		if kind, pattern := g.formatAt(row, col); kind == "DATE" || kind == "DATE_TIME" {
			return date{f, dated(f, pattern)}
		}
	}
	return v
}

// dated writes a serial number by the patterns that are in use here.
func dated(serial float64, pattern string) string {
	at := time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC).Add(time.Duration(math.Round(serial*86400)) * time.Second)
	layout := strings.NewReplacer("yyyy", "2006", "mm-", "01-", "dd", "02", "hh", "15", ":mm", ":04", "ss", "05").Replace(pattern)
	if layout == "" {
		layout = "2006-01-02 15:04:05"
	}
	return at.Format(layout)
}

func repeatCell(_ *Server, b *book, req *api.RepeatCellRequest, _ *api.Response) error {
	if req.Range == nil || req.Cell == nil {
		return bad("range and cell must be set")
	}
	g, a, err := b.gridRange(req.Range)
	if err != nil {
		return err
	}
	fields, err := parseMask(req.Fields)
	if err != nil || len(fields) == 0 {
		return bad("At least one field must be listed in 'fields'. (Use '*' to indicate all fields.)")
	}
	if g.guards(a) {
		return errProtected()
	}
	looks := req.Cell.UserEnteredFormat
	if looks == nil {
		looks = &api.CellFormat{}
	}
	f := format{area: a}
	for _, path := range fields.paths() {
		switch path {
		case "userEnteredFormat.numberFormat":
			if looks.NumberFormat != nil {
				if err := oneOf("cell.user_entered_format.number_format.type", looks.NumberFormat.Type, "TEXT", "NUMBER", "PERCENT", "CURRENCY", "DATE", "TIME", "DATE_TIME", "SCIENTIFIC"); err != nil {
					return err
				}
				f.kind, f.pattern = looks.NumberFormat.Type, looks.NumberFormat.Pattern
			}
		case "userEnteredFormat.textFormat.bold":
			f.bold = new(looks.TextFormat != nil && looks.TextFormat.Bold)
		default:
			return bad("fields: %s is not part of this stand-in", path)
		}
	}
	g.formats = append(g.formats, f)
	return nil
}

func setBasicFilter(_ *Server, b *book, req *api.SetBasicFilterRequest, _ *api.Response) error {
	if req.Filter == nil || req.Filter.Range == nil {
		return bad("filter and its range must be set")
	}
	g, a, err := b.gridRange(req.Filter.Range)
	switch {
	case err != nil:
		return err
	case g.locked():
		return errProtected()
	case slices.ContainsFunc(g.tables, func(t table) bool { return t.area.overlaps(a) }):
		return bad("You can't create a filter over a range that contains a table.") // the words are not confirmed
	}
	g.filter = &a
	return nil
}

func clearBasicFilter(_ *Server, b *book, req *api.ClearBasicFilterRequest, _ *api.Response) error {
	g := b.byID(req.SheetId)
	if g == nil {
		return bad("No grid with id: %d", req.SheetId)
	}
	g.filter = nil
	return nil
}

func addTable(s *Server, b *book, req *api.AddTableRequest, reply *api.Response) error {
	t := req.Table
	if t == nil || t.Range == nil {
		return bad("table and its range must be set")
	}
	g, a, err := b.gridRange(t.Range)
	switch {
	case err != nil:
		return err
	case g.guards(a):
		return errProtected()
	case slices.ContainsFunc(g.tables, func(o table) bool { return o.area.overlaps(a) }):
		return bad("You can't create a table that overlaps another one.") // the words are not confirmed
	}
	if t.TableId == "" {
		t.TableId = fmt.Sprint(s.random(1 << 40))
	}
	g.tables = append(g.tables, table{t.TableId, t.Name, a})
	reply.AddTable = &api.AddTableResponse{Table: t}
	return nil
}

// Looks says what a person sees of a tab beside its cells.
type Looks struct {
	Frozen  int      // rows
	Bold    bool     // the first row is
	Filter  bool     // there is one over the first row
	Formats []string // each column's number format, empty where it has none
}

// Looks describes a tab.
func (s *Server) Looks(tab string) Looks {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.first().tab(tab)
	if g == nil {
		return Looks{}
	}
	out := Looks{Frozen: g.frozenRows, Filter: g.filter != nil && g.filter.row == 0, Formats: make([]string, g.cols)}
	for _, f := range g.formats {
		if f.bold != nil && f.area.has(0, 0) {
			out.Bold = *f.bold
		}
	}
	for c := range out.Formats {
		out.Formats[c], _ = g.formatAt(1, c)
	}
	return out
}

// MakeTable turns a tab's used cells into a table.
func (s *Server) MakeTable(tab string) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		rows, cols := g.used()
		g.tables = append(g.tables, table{fmt.Sprint(s.random(1 << 40)), tab, area{0, 0, max(rows, 1), max(cols, 1)}})
		return nil
	})
}
