package google

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	api "google.golang.org/api/sheets/v4"
)

// A named is a range that has a name, by which values can be read and written. It
// moves with inserted and deleted rows and columns, and goes when all of it is deleted:
// Sheets keeps such a name without a range, which no request finds either.
type named struct {
	id, name string
	sheet    int64
	area     area
}

// rangeName is what Sheets takes for a name, apart from what looks like a reference.
var rangeName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,249}$`)

func (b *book) named(match func(named) bool) int { return slices.IndexFunc(b.names, match) }

func (b *book) describeNames() []*api.NamedRange {
	var out []*api.NamedRange
	for _, n := range b.names {
		out = append(out, &api.NamedRange{NamedRangeId: n.id, Name: n.name, Range: &api.GridRange{SheetId: n.sheet,
			StartRowIndex: int64(n.area.row), StartColumnIndex: int64(n.area.col), EndRowIndex: int64(n.area.endRow), EndColumnIndex: int64(n.area.endCol)}})
	}
	return out
}

func addNamedRange(s *Server, b *book, req *api.AddNamedRangeRequest, reply *api.Response) error {
	n := req.NamedRange
	switch {
	case n == nil || n.Range == nil:
		return bad("namedRange and its range must be set")
	case !rangeName.MatchString(n.Name) || cellLike.MatchString(n.Name):
		return bad("namedRange.name: %q is not a valid name", n.Name)
	case b.named(func(o named) bool { return strings.EqualFold(o.name, n.Name) }) >= 0:
		return bad("Cannot add named range with name: %s because it already exists.", n.Name)
	case n.NamedRangeId != "" && b.named(func(o named) bool { return o.id == n.NamedRangeId }) >= 0:
		return bad("A named range with id %s already exists.", n.NamedRangeId)
	}
	_, a, err := b.gridRange(n.Range)
	if err != nil {
		return err
	}
	id := n.NamedRangeId
	if id == "" {
		id = fmt.Sprint(s.random(1 << 40))
	}
	b.names = append(b.names, named{id, n.Name, n.Range.SheetId, a})
	reply.AddNamedRange = &api.AddNamedRangeResponse{NamedRange: b.describeNames()[len(b.names)-1]}
	return nil
}

func deleteNamedRange(_ *Server, b *book, req *api.DeleteNamedRangeRequest, _ *api.Response) error {
	i := b.named(func(o named) bool { return o.id == req.NamedRangeId })
	if i < 0 {
		return bad("No named range with id: %s", req.NamedRangeId)
	}
	b.names = slices.Delete(slices.Clone(b.names), i, i+1)
	return nil
}

// namesAfterInsert and namesAfterDelete follow rows or columns that come and go.
func (b *book) namesAfterInsert(g *grid, dimension string, at, n int) {
	b.moveNames(g, dimension, afterInsert(at, n))
}

// afterInsert and afterDelete say where rows or columns from, to (excluded) are then.
func afterInsert(at, n int) func(from, to int) (int, int) {
	return func(from, to int) (int, int) {
		if from >= at {
			from += n
		}
		if to > at {
			to += n
		}
		return from, to
	}
}

func afterDelete(at, end int) func(from, to int) (int, int) {
	up := func(i int) int {
		if i >= end {
			return i - (end - at)
		}
		return min(i, at)
	}
	return func(from, to int) (int, int) { return up(from), up(to) }
}

func (b *book) namesAfterDelete(g *grid, dimension string, at, end int) {
	b.moveNames(g, dimension, afterDelete(at, end))
}

func (b *book) moveNames(g *grid, dimension string, move func(from, to int) (int, int)) {
	kept := make([]named, 0, len(b.names))
	for _, n := range b.names {
		if n.sheet == g.id {
			from, to := &n.area.row, &n.area.endRow
			if dimension == columnsDimension {
				from, to = &n.area.col, &n.area.endCol
			}
			*from, *to = move(*from, *to)
			if *from >= *to {
				continue
			}
		}
		kept = append(kept, n)
	}
	b.names = kept
}
