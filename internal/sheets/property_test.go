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
// and of writers: after the last audit every key has one row, right in every cell.
// And every note that a person wrote into a row stands in the row of the same key,
// unless a row met two accidents with no audit in between (calm is false).
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
	notes   map[string]string // a person's note → the key that it was written beside
	serial  int
	// deletedOnce has the keys of records that were deleted at some time.
	deletedOnce map[string]bool
}

func (s *scene) run() {
	if err := s.stream.Purge(context.Background()); err != nil {
		s.Fatal(err)
	}
	s.clock = s.clock.Add(time.Hour)
	s.paper = newPaper(s.tb, func() time.Time { return s.clock })
	s.newest = 0
	s.notes, s.deletedOnce = map[string]string{}, map[string]bool{}
	for i := range s.writers {
		s.writers[i] = s.writer(s.tb)
	}
	s.put(s.tb, leads(0, rapid.IntRange(0, 6).Draw(s.T, "leads at first")))
	s.work(context.Background(), 0)
	calm := rapid.Bool().Draw(s.T, "calm")
	mend := func() {
		if !calm {
			return
		}
		s.clock = s.clock.Add(2 * time.Minute)
		if _, err := s.writers[rapid.IntRange(0, 1).Draw(s.T, "mends")].Audit(context.Background()); err != nil {
			s.Fatalf("audit: %v", err)
		}
	}
	for range rapid.IntRange(1, 14).Draw(s.T, "steps") {
		switch rapid.SampledFrom([]string{"change", "person", "work", "audit"}).Draw(s.T, "step") {
		case "change":
			s.change()
		case "person":
			s.person()
		case "work":
			s.disturbed(s.work)
			mend()
		case "audit":
			s.disturbed(func(ctx context.Context, i int) { _, _ = s.writers[i].Audit(ctx) })
			mend()
		}
	}
	s.clock = s.clock.Add(time.Hour)
	if _, err := s.writers[rapid.IntRange(0, 1).Draw(s.T, "last")].Audit(context.Background()); err != nil {
		s.Fatalf("last audit: %v", err)
	}
	if d := s.check(s.tb); d != "" {
		s.Fatalf("bucket (-) and sheet (+) differ:\n%s", d)
	}
	if calm {
		s.checkNotes()
	}
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
	what := rapid.SampledFrom([]string{"nothing", "person", "frozen", "429", "500", "no answer"}).Draw(s.T, "before")
	then := rapid.SampledFrom([]string{"nothing", "nothing", "person", "500", "no answer", "killed"}).Draw(s.T, "after")
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
	s.paper.before = func(string) *fault {
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
			return &fault{status: 429}
		case "500":
			return &fault{status: 500}
		case "no answer":
			return &fault{}
		}
		return nil
	}
	s.paper.after = func(string) *fault {
		if call != at {
			return nil
		}
		switch then {
		case "person":
			within(s.person)
		case "500":
			return &fault{status: 500}
		case "no answer":
			return &fault{}
		case "killed":
			kill()
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
	n := rapid.IntRange(0, 11).Draw(s.T, "lead")
	key := contracts.KeyLead(lead(n).ID)
	switch rapid.IntRange(0, 5).Draw(s.T, "change") {
	case 0:
		s.delete(s.tb, key)
		s.deletedOnce[lead(n).ID] = true
	case 1:
		s.put(s.tb, leads(n, n+3))
	default:
		l := lead(n)
		l.Status = rapid.SampledFrom([]contracts.LeadStatus{contracts.LeadNew, contracts.LeadContacted, contracts.LeadClient}).Draw(s.T, "status")
		l.CustomerID = rapid.SampledFrom([]string{"", "cus_" + l.ID}).Draw(s.T, "customer")
		s.put(s.tb, map[string]any{key: l})
	}
}

// person edits the Leads tab.
func (s *scene) person() {
	g := s.paper.page(s.tb, "Leads")
	rows := g.cells()
	if len(rows) < 2 {
		return
	}
	head := rows[0]
	row := rapid.IntRange(1, len(rows)-1).Draw(s.T, "row")
	switch rapid.SampledFrom([]string{"note", "note", "shuffle", "sort", "insert", "insert several", "delete", "column"}).Draw(s.T, "person") {
	case "note":
		// A person notes what the row shows, which has to be clear.
		key := g.text(row, slices.Index(head, "id"))
		if key == "" || !strings.Contains(g.text(row, slices.Index(head, "name")), key) {
			return
		}
		col := slices.Index(head, "Notes")
		if col < 0 {
			n, err := s.paper.AddColumn("Leads", "Notes")
			if err != nil {
				s.Fatal(err)
			}
			col = n - 1
		}
		delete(s.notes, g.text(row, col))
		s.serial++
		note := fmt.Sprintf("note %d", s.serial)
		s.notes[note] = key
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
	g := s.paper.page(s.tb, "Leads")
	rows := g.cells()
	id, col := slices.Index(rows[0], "id"), slices.Index(rows[0], "Notes")
	found := map[string]bool{}
	for r := 1; r < len(rows) && col >= 0; r++ {
		note := g.text(r, col)
		if note == "" {
			continue
		}
		found[note] = true
		if key := g.text(r, id); key != s.notes[note] && !s.deletedOnce[s.notes[note]] {
			s.Fatalf("%q was written beside %s and stands beside %q", note, s.notes[note], key)
		}
	}
	for note, key := range s.notes {
		if !found[note] {
			s.Fatalf("%q, written beside %s, is lost", note, key)
		}
	}
}
