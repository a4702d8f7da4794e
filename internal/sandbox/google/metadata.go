package google

import (
	"slices"
	"strings"

	api "google.golang.org/api/sheets/v4"
)

// A metadata is a mark that a program leaves on a place of the spreadsheet. A row's
// moves with inserted and deleted rows. Whether it also moves when a person sorts is
// not documented; here it stays where it is.
type metadata struct {
	id                     int64
	key, value, visibility string
	kind                   string // ROW, COLUMN, SHEET or SPREADSHEET
	sheet                  int64
	index                  int // of the row or column
}

func (m metadata) on(g *grid, dimension string) bool {
	return m.sheet == g.id && (m.kind == "ROW" && dimension == rowsDimension || m.kind == "COLUMN" && dimension == columnsDimension)
}

func (m metadata) describe() *api.DeveloperMetadata {
	l := &api.DeveloperMetadataLocation{LocationType: m.kind}
	switch m.kind {
	case "SPREADSHEET":
		l.Spreadsheet = true
	case "SHEET":
		l.SheetId, l.ForceSendFields = m.sheet, []string{"SheetId"}
	default:
		l.DimensionRange = &api.DimensionRange{SheetId: m.sheet, Dimension: m.kind + "S", StartIndex: int64(m.index), EndIndex: int64(m.index) + 1,
			ForceSendFields: []string{"SheetId", "StartIndex"}}
	}
	return &api.DeveloperMetadata{MetadataId: m.id, MetadataKey: m.key, MetadataValue: m.value, Visibility: m.visibility, Location: l}
}

func createDeveloperMetadata(s *Server, b *book, req *api.CreateDeveloperMetadataRequest, reply *api.Response) error {
	d := req.DeveloperMetadata
	if d == nil || d.MetadataKey == "" || d.Location == nil {
		return bad("developerMetadata: metadataKey and location must be set")
	}
	if err := oneOf("visibility", d.Visibility, "DOCUMENT", "PROJECT"); err != nil {
		return err
	}
	m := metadata{id: d.MetadataId, key: d.MetadataKey, value: d.MetadataValue, visibility: d.Visibility, kind: "SHEET", sheet: d.Location.SheetId}
	taken := func() bool { return slices.ContainsFunc(b.meta, func(o metadata) bool { return o.id == m.id }) }
	for m.id == 0 || d.MetadataId == 0 && taken() {
		m.id = s.random(1 << 31)
	}
	if m.id < 0 || taken() {
		return bad("developerMetadata.metadataId: %d is already taken, or not positive", m.id)
	}
	switch r := d.Location.DimensionRange; {
	case d.Location.Spreadsheet:
		m.kind, m.sheet = "SPREADSHEET", 0
	case r != nil:
		g, start, end, size, err := b.dimension(r)
		if err != nil {
			return err
		}
		if end-start != 1 || end > size {
			return bad("developerMetadata.location.dimensionRange: must be exactly one row or column")
		}
		m.kind, m.sheet, m.index = strings.TrimSuffix(r.Dimension, "S"), g.id, start
	case b.byID(m.sheet) == nil:
		return bad("No sheet with id: %d", m.sheet)
	}
	b.meta = append(b.meta, m)
	reply.CreateDeveloperMetadata = &api.CreateDeveloperMetadataResponse{DeveloperMetadata: m.describe()}
	return nil
}

// prepareSearch finds metadata by id, key and value.
func prepareSearch(r request) (apply, error) {
	var req api.SearchDeveloperMetadataRequest
	if err := decode(r.body, &req); err != nil {
		return nil, err
	}
	for i, f := range req.DataFilters {
		if f.DeveloperMetadataLookup == nil {
			return nil, bad("Invalid dataFilters[%d]: only developerMetadataLookup is part of this stand-in", i)
		}
	}
	return func(b *book) (any, error) {
		out := &api.SearchDeveloperMetadataResponse{}
		for _, m := range b.meta {
			var by []*api.DataFilter
			for _, f := range req.DataFilters {
				l := f.DeveloperMetadataLookup
				if (l.MetadataId == 0 || l.MetadataId == m.id) && (l.MetadataKey == "" || l.MetadataKey == m.key) &&
					(l.MetadataValue == "" || l.MetadataValue == m.value) && (l.LocationType == "" || l.LocationType == m.kind) {
					by = append(by, f)
				}
			}
			if by != nil {
				out.MatchedDeveloperMetadata = append(out.MatchedDeveloperMetadata, &api.MatchedDeveloperMetadata{DeveloperMetadata: m.describe(), DataFilters: by})
			}
		}
		return out, nil
	}, nil
}
