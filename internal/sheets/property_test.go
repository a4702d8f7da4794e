package sheets

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"leadpipe/contracts"
)

// Whatever people do to the sheet, whenever they do it, and whatever becomes of calls
// and of writers: after the last audit every key has one row, right in every cell, and
// every note that a person wrote into a row stands in the row of the same key. A call
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
	if _, err := s.writers[rapid.IntRange(0, 1).Draw(s.T, "last")].Audit(context.Background()); err != nil {
		s.Fatalf("last audit: %v", err)
	}
	s.paper.land()
	if d := s.check(s.tb); d != "" {
		s.Fatalf("bucket (-) and sheet (+) differ:\n%s", d)
	}
	s.checkNotes()
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
		s.paper.before, s.paper.after = nil, nil
		do()
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
		if g.text(row, slices.Index(head, columns[0])) == id.key && g.text(row, slices.Index(head, columns[k.unique])) == k.shows(n) {
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
	switch rapid.SampledFrom([]string{"note", "note", "shuffle", "sort", "insert", "insert several", "delete", "column"}).Draw(s.T, "person") {
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
		g.shuffle(rapid.Uint64().Draw(s.T, "seed"))
	case "sort":
		g.sortDown(rapid.IntRange(0, len(head)-1).Draw(s.T, "by"))
	case "insert":
		g.insertRow(row)
	case "insert several":
		for range 3 {
			g.insertRow(row)
		}
	case "delete":
		for _, text := range rows[row] {
			delete(s.notes, text)
		}
		g.deleteRow(row)
	case "column":
		if len(head) < 16 {
			g.insertColumn(rapid.IntRange(1, len(head)).Draw(s.T, "column"))
		}
	}
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
