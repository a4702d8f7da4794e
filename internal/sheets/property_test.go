package sheets

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"leadpipe/contracts"
)

// Whatever people do to the sheet, whenever they do it, and whatever becomes of calls
// and of writers: after the last audit every key has one row, right in every cell that is
// neither merged nor protected, and each merge or protection that keeps something from
// its cell has exactly one incident. When people take those away every cell becomes right,
// and no incident stays open. Every note that a person wrote into a row stands in the row
// of the same key, and no column of a person's is written, whatever its title. A call
// that arrives even later changes nothing.
func TestSheetEndsEqualToTheBucket(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stream, err := r.js.Stream(t.Context(), contracts.StreamCRM)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := &scene{T: rt, rig: r, tb: t, stream: stream}
		s.run()
	})
}

// A scene is one random history.
type scene struct {
	*rapid.T
	*rig
	tb      testing.TB
	stream  jetstream.Stream
	writers [2]*Writer // both believe that they are the one
	unacked []contracts.Message
	notes   map[string]rowID // a person's note → the row that it was written into
	mine    map[string]bool  // what a person wrote into a column with a title of ours
	serial  int
	// deletedOnce has the rows of records that were deleted at some time.
	deletedOnce map[rowID]bool
}

// A sort is one sort of record that a scene tells of.
type sort struct {
	tab    int
	key    func(n int) string // of the n-th record
	record func(n int, status, customer string) any
	unique int                // a column that tells the row's owner, beside the key
	shows  func(n int) string // what it shows
}

var sorts = []sort{
	{leadsTab, func(n int) string { return contracts.KeyLead(lead(n).ID) }, func(n int, status, customer string) any {
		l := lead(n)
		l.Status, l.CustomerID = contracts.LeadStatus(status), customer
		return l
	}, 2, func(n int) string { return lead(n).Name }},
	{clientsTab, func(n int) string { return contracts.KeyCustomer(customerID(n)) }, func(n int, status, customer string) any {
		l := lead(n)
		return contracts.Customer{ID: customerID(n), Name: l.Name, Email: l.Email, Phone: l.Phone, LeadID: customer, Since: l.CreatedAt,
			Status: contracts.CustomerStatus(status), Access: contracts.AccessActive, Subscriptions: []string{}}
	}, 1, func(n int) string { return lead(n).Name }},
	{optOutsTab, func(n int) string { return "optout." + strings.TrimPrefix(lead(n).Phone, "+") }, func(n int, status, customer string) any {
		o := contracts.OptOut{Phone: lead(n).Phone, OptedOutAt: lead(n).CreatedAt, Keyword: "STOP", Source: contracts.OptOutBySMS}
		if customer != "" {
			o.ConfirmedAt = o.OptedOutAt.Add(time.Second)
		}
		return o
	}, 1, func(n int) string { return person(lead(n).CreatedAt, "") }},
}

func customerID(n int) string { return "cus_" + lead(n).ID }

// most is how many records of a kind there are.
const most = 12

func (s *scene) run() {
	if err := s.stream.Purge(context.Background()); err != nil {
		s.Fatal(err)
	}
	s.clock = s.clock.Add(time.Hour)
	s.paper = newPaper(s.tb, func() time.Time { return s.clock })
	s.newest = 0
	s.mine, s.unacked = map[string]bool{}, nil
	s.notes, s.deletedOnce = map[string]rowID{}, map[rowID]bool{}
	for i := range s.writers {
		s.writers[i] = s.writer(s.tb)
	}
	at := rapid.IntRange(0, 6).Draw(s.T, "records at first")
	for _, k := range sorts {
		for n := range at {
			s.put(s.tb, map[string]any{k.key(n): k.record(n, "new", "")})
		}
	}
	s.work(context.Background(), 0)
	for range rapid.IntRange(1, 14).Draw(s.T, "steps") {
		switch rapid.SampledFrom([]string{"change", "person", "work", "audit", "late calls"}).Draw(s.T, "step") {
		case "change":
			s.change()
		case "person":
			s.person()
		case "work":
			s.disturbed(s.work)
		case "late calls":
			s.paper.land()
		case "audit":
			s.disturbed(func(ctx context.Context, i int) { _, _ = s.writers[i].Audit(ctx) })
		}
	}
	s.clock = s.clock.Add(time.Hour)
	last := s.writers[rapid.IntRange(0, 1).Draw(s.T, "last")]
	s.finish(last)
	s.checkBarred(last)
	for _, k := range sorts {
		g := s.paper.page(s.tb, tabs[k.tab].title)
		g.must(g.paper.Unmerge(g.title))
		g.must(g.paper.Unprotect(g.title))
		g.must(g.paper.Unrestrict(g.title))
	}
	s.finish(last)
	s.checkMine()
	if open := s.openIncidents(s.tb); len(open) > 0 {
		s.Fatalf("open when nothing is barred: %+v", open)
	}
	s.finish(last)
	if d := s.check(s.tb); d != "" {
		s.Fatalf("bucket (-) and sheet (+) differ:\n%s", d)
	}
	s.checkNotes()
}

// finish has a writer do all there is to do.
func (s *scene) finish(w *Writer) {
	s.clock = s.clock.Add(time.Hour)
	for range 2 { // the rows of incidents that the first audit opens or closes come with the second
		if _, err := w.Audit(context.Background()); err != nil {
			s.Fatalf("last audit: %v", err)
		}
		s.clock = s.clock.Add(time.Hour)
	}
	s.paper.land()
}

// work hands a writer what has changed and what is not done yet.
func (s *scene) work(ctx context.Context, i int) {
	s.unacked = append(s.unacked, s.changes(s.tb)...)
	msgs := slices.Clone(s.unacked)
	errs := s.writers[i].Handle(ctx, msgs)
	for j, m := range msgs {
		if errs[j] == nil {
			s.unacked = slices.DeleteFunc(s.unacked, func(u contracts.Message) bool { return u.Sequence == m.Sequence })
		}
	}
}

// disturbed has a writer do something, and at one of its calls something happens.
func (s *scene) disturbed(do func(ctx context.Context, writer int)) {
	at := rapid.IntRange(1, 9).Draw(s.T, "at call")
	what := rapid.SampledFrom([]string{"nothing", "person", "frozen", "429", "500", "no answer", "late"}).Draw(s.T, "before")
	then := rapid.SampledFrom([]string{"nothing", "nothing", "person", "500", "no answer", "killed", "late calls"}).Draw(s.T, "after")
	writer := rapid.IntRange(0, 1).Draw(s.T, "writer")
	ctx, kill := context.WithCancel(context.Background())
	defer kill()
	call := 0
	within := func(do func()) { // what is done in the middle of a call is not disturbed
		before, after := s.paper.before, s.paper.after
		s.paper.before, s.paper.after, s.paper.busy = nil, nil, true
		do()
		s.paper.busy = false
		s.paper.before, s.paper.after = before, after
	}
	s.paper.before = func(string) *mishap {
		if call++; call != at {
			return nil
		}
		switch what {
		case "person":
			within(s.person)
		case "frozen": // the call is on its way for long, and another writer takes over
			for range rapid.IntRange(1, 3).Draw(s.T, "meanwhile") {
				within(func() {
					switch rapid.IntRange(0, 3).Draw(s.T, "does") {
					case 0:
						s.change()
					case 1:
						s.person()
					case 2:
						s.work(context.Background(), 1-writer)
					case 3:
						_, _ = s.writers[1-writer].Audit(context.Background())
					}
				})
			}
		case "429":
			return &mishap{status: 429}
		case "500":
			return &mishap{status: 500}
		case "no answer":
			return &mishap{}
		case "late":
			return &mishap{late: true}
		}
		return nil
	}
	s.paper.after = func(string) *mishap {
		if call != at {
			return nil
		}
		switch then {
		case "person":
			within(s.person)
		case "500":
			return &mishap{status: 500}
		case "no answer":
			return &mishap{}
		case "killed":
			kill()
		case "late calls":
			within(s.paper.land)
		}
		return nil
	}
	do(ctx, writer)
	s.paper.before, s.paper.after = nil, nil
	if ctx.Err() != nil {
		s.writers[writer] = s.writer(s.tb)
	}
}

// change changes the bucket.
func (s *scene) change() {
	k := rapid.SampledFrom(sorts).Draw(s.T, "kind")
	n := rapid.IntRange(0, most-1).Draw(s.T, "record")
	key := k.key(n)
	switch rapid.IntRange(0, 5).Draw(s.T, "change") {
	case 0:
		s.delete(s.tb, key)
		id, _ := rowOf(key)
		s.deletedOnce[id] = true
	case 1:
		records := map[string]any{}
		for i := n; i < n+3; i++ {
			records[k.key(i)] = k.record(i, "new", "")
		}
		s.put(s.tb, records)
	default:
		s.put(s.tb, map[string]any{key: k.record(n, rapid.SampledFrom([]string{"new", "contacted", "client"}).Draw(s.T, "status"),
			rapid.SampledFrom([]string{"", "other"}).Draw(s.T, "other"))})
	}
}

// owner finds whose row a row clearly is; -1: nobody's, or not clear.
func (k sort) owner(g hands, row int, head []string) (n int, id rowID) {
	for n := range most + 3 {
		id, _ := rowOf(k.key(n))
		columns := tabs[k.tab].names()
		says := func(title, text string) bool { // in one of the columns with that title
			for c, h := range head {
				if h == title && g.text(row, c) == text {
					return true
				}
			}
			return false
		}
		if says(columns[0], id.key) && says(columns[k.unique], k.shows(n)) {
			return n, id
		}
	}
	return -1, rowID{}
}

// person edits a tab.
func (s *scene) person() {
	k := rapid.SampledFrom(sorts).Draw(s.T, "tab")
	title := tabs[k.tab].title
	g := s.paper.page(s.tb, title)
	rows := g.cells()
	if len(rows) < 2 {
		return
	}
	head := rows[0]
	row := rapid.IntRange(1, len(rows)-1).Draw(s.T, "row")
	switch rapid.SampledFrom([]string{"note", "note", "shuffle", "sort", "insert", "insert several", "delete", "column",
		"merge", "protect", "unbar", "check boxes", "rename", "title of ours"}).Draw(s.T, "person") {
	case "merge":
		// Two cells side by side of ours, or of the header.
		at := slices.Index(head, rapid.SampledFrom(tabs[k.tab].names()).Draw(s.T, "from"))
		if at < 0 || at+1 >= len(head) || !slices.Contains(tabs[k.tab].names(), head[at+1]) || s.mine[g.text(row, at+1)] {
			return
		}
		_ = s.paper.Merge(title, row+1, at+1, row+1, at+2) // refused where there is one already
	case "protect":
		col := rapid.IntRange(1, len(head)).Draw(s.T, "column")
		switch rapid.IntRange(0, 3).Draw(s.T, "what") {
		case 0:
			g.must(s.paper.Protect(title, 0, 0, 0, 0))
		case 1:
			g.must(s.paper.Protect(title, 0, col, 0, col))
		case 2:
			g.must(s.paper.Protect(title, row+1, 1, row+1, len(head)))
		case 3:
			g.must(s.paper.Protect(title, row+1, col, row+1, col))
		}
	case "unbar":
		g.must(s.paper.Unprotect(title))
		g.must(s.paper.Unmerge(title))
	case "check boxes":
		col, err := s.paper.AddColumn(title, "done")
		if err != nil {
			s.Fatal(err)
		}
		if len(head) < 20 {
			g.must(s.paper.Checkboxes(title, col))
		}
	case "rename":
		g.must(s.paper.RenameTab(title, rapid.SampledFrom([]string{strings.ToUpper(title), strings.ToLower(title), title}).Draw(s.T, "title")))
	case "title of ours":
		heading := rapid.SampledFrom(tabs[k.tab].names()).Draw(s.T, "heading")
		at := slices.Index(head, heading)
		// In the very moment of a write it is the case that stays open: see the package's comment.
		if at < 0 || len(head) > 20 || s.paper.busy {
			return
		}
		at = rapid.IntRange(0, at).Draw(s.T, "left of ours")
		g.insertColumn(at)
		g.set(0, at, heading)
		s.serial++
		text := fmt.Sprintf("mine %d", s.serial)
		g.set(row, at, text)
		s.mine[text] = g.text(row, at) == text // a cell inside merged ones keeps nothing
	case "note":
		// A person notes what the row shows, which has to be clear.
		n, id := k.owner(g, row, head)
		if n < 0 {
			return
		}
		col := slices.Index(head, "Notes")
		if col < 0 {
			n, err := s.paper.AddColumn(title, "Notes")
			if err != nil {
				s.Fatal(err)
			}
			col = n - 1
		}
		delete(s.notes, g.text(row, col))
		s.serial++
		note := fmt.Sprintf("note %d", s.serial)
		s.notes[note] = id
		g.set(row, col, note)
	case "shuffle":
		_ = s.paper.Shuffle(title, rand.New(rand.NewPCG(rapid.Uint64().Draw(s.T, "seed"), 0))) // refused where cells are merged
	case "sort":
		_ = s.paper.SortBy(title, rapid.IntRange(1, len(head)).Draw(s.T, "by"), true)
	case "insert":
		g.insertRow(row)
	case "insert several":
		for range 3 {
			g.insertRow(row)
		}
	case "delete":
		for _, text := range rows[row] {
			delete(s.notes, text)
			delete(s.mine, text)
		}
		g.deleteRow(row)
	case "column":
		if len(head) < 16 {
			g.insertColumn(rapid.IntRange(1, len(head)).Draw(s.T, "column"))
		}
	}
}

// checkMine says that what a person wrote into columns with our titles is there, and
// takes those columns away.
func (s *scene) checkMine() {
	found := map[string]bool{}
	for _, k := range sorts {
		g := s.paper.page(s.tb, tabs[k.tab].title)
		for again := true; again; {
			again = false
			for _, row := range g.cells() {
				for c, text := range row {
					if strings.HasPrefix(text, "mine ") && !again {
						again = true
						for _, row := range g.cells() {
							if c < len(row) && row[c] != "" {
								found[row[c]] = true
							}
						}
						g.must(s.paper.DeleteColumn(g.title, c+1))
					}
				}
				if again {
					break
				}
			}
		}
	}
	for text, kept := range s.mine {
		if kept && !found[text] {
			s.Fatalf("%q is lost", text)
		}
	}
	for _, k := range sorts {
		s.dropEmptied(s.paper.page(s.tb, tabs[k.tab].title))
	}
}

// dropEmptied takes away the columns with titles of ours in which a person's text stood
// until its row was deleted: of two with the same title, that with less in it.
func (s *scene) dropEmptied(g hands) {
	rows := g.cells()
	filled := make([]int, len(rows[0]))
	for _, row := range rows[1:] {
		for c, text := range row {
			if c < len(filled) && text != "" {
				filled[c]++
			}
		}
	}
	for c, heading := range slices.Backward(rows[0]) {
		if heading == "" {
			continue
		}
		for other, h := range rows[0] {
			if other != c && h == heading && (filled[c] < filled[other] || filled[c] == filled[other] && other > c) {
				g.must(s.paper.DeleteColumn(g.title, c+1))
				break
			}
		}
	}
}

// checkBarred says that all that can be written is right, and that there is one incident
// for each merge or protection that keeps something from its cell.
func (s *scene) checkBarred(w *Writer) {
	l, err := w.client.list(context.Background())
	if err != nil {
		s.Fatal(err)
	}
	open := s.openIncidents(s.tb)
	told := func(sh sheet, b block) (n int) {
		for _, i := range open {
			if strings.Contains(i.Reason, sh.area(b)+" ") {
				n++
			}
		}
		return n
	}
	bars := 0
	for _, k := range sorts {
		sh, _ := l.tab(k.tab)
		bars += len(sh.locked) + len(sh.merges) + 1 // the header may be barred too
		pages, ok, err := w.form(context.Background(), l)
		if err != nil || !ok || pages[k.tab] == nil {
			if len(open) == 0 {
				s.Fatalf("%s is not in form (%v), and there is no incident", sh.title, err)
			}
			continue
		}
		p := pages[k.tab]
		wants, err := w.read(context.Background(), k.tab, allKeys(k))
		if err != nil {
			s.Fatal(err)
		}
		grid, err := w.client.get(context.Background(), []string{sh.area(block{0, 0, sh.rows, sh.cols})})
		if err != nil {
			s.Fatal(err)
		}
		rows := map[string][]*line{}
		for _, l := range p.lines(grid[0], 0) {
			rows[l.key] = append(rows[l.key], l)
		}
		for key, cells := range wants {
			is := rows[key]
			barredRow := func(l *line) bool {
				return slices.ContainsFunc(sh.locked, func(b block) bool { return l.row >= b.row && l.row < b.endRow })
			}
			switch {
			case len(is) > 1:
				if !slices.ContainsFunc(is, barredRow) {
					s.Fatalf("%s has %d rows", key, len(is))
				}
				continue
			case cells == nil && len(is) == 1 && !barredRow(is[0]):
				s.Fatalf("%s was deleted and has a row", key)
			case cells == nil:
				continue
			case len(is) == 0:
				if !slices.ContainsFunc(sh.locked, func(b block) bool { return b.col <= p.layout.at[0] && b.endCol > p.layout.at[0] }) {
					s.Fatalf("%s has no row", key)
				}
				continue
			}
			for i, want := range w.shows(k.tab, cells) {
				c := p.layout.at[i]
				if i == 0 || is[0].cells[i-1] == want {
					continue
				}
				n := 0
				for _, b := range slices.Concat(sh.locked, sh.merges) {
					if b.has(is[0].row, c) {
						n += told(sh, b)
					}
				}
				if n == 0 {
					s.Fatalf("%s, column %s shows %q and should show %q: no incident says why: %+v", key, tabs[k.tab].columns[i].name, is[0].cells[i-1], want, open)
				}
			}
		}
		for _, b := range slices.Concat(sh.locked, sh.merges) {
			if n := told(sh, b); n > 1 && !slices.Contains(slices.Delete(slices.Clone(sh.locked), 0, min(1, len(sh.locked))), b) {
				s.Fatalf("%d incidents of %s", n, sh.area(b))
			}
		}
	}
	if len(open) > bars {
		s.Fatalf("%d incidents of %d places: %+v", len(open), bars, open)
	}
}

func allKeys(k sort) (keys []string) {
	for n := range most + 3 {
		id, _ := rowOf(k.key(n))
		keys = append(keys, id.key)
	}
	return keys
}

// checkNotes says where each note must be: beside its key. One whose record was deleted
// has no row of its own any more, and only has to be there still.
func (s *scene) checkNotes() {
	found := map[string]bool{}
	for _, k := range sorts {
		g := s.paper.page(s.tb, tabs[k.tab].title)
		rows := g.cells()
		key, col := slices.Index(rows[0], tabs[k.tab].columns[0].name), slices.Index(rows[0], "Notes")
		for r := 1; r < len(rows) && col >= 0; r++ {
			note := g.text(r, col)
			if note == "" {
				continue
			}
			found[note] = true
			if id := (rowID{k.tab, g.text(r, key)}); id != s.notes[note] && !s.deletedOnce[s.notes[note]] {
				s.Fatalf("%q was written beside %v and stands beside %v", note, s.notes[note], id)
			}
		}
	}
	for note, id := range s.notes {
		if !found[note] {
			s.Fatalf("%q, written beside %v, is lost", note, id)
		}
	}
}
