package consent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/consent"
	"leadpipe/internal/natstest"
	"leadpipe/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	phone  = "+33639980102"
	digits = "33639980102"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func at(hour int) time.Time { return noon.Add(time.Duration(hour) * time.Hour) }

type desk struct {
	t     *testing.T
	nats  *natstest.Server
	store *state.Store
}

func open(t *testing.T) *desk {
	s := natstest.New(t, natstest.LazySync)
	return &desk{t, s, state.New(s.JetStream("consumers"), nil)}
}

func (d *desk) do(decide func(*state.Tx) error) error { return d.store.Update(d.t.Context(), decide) }

func (d *desk) must(decide func(*state.Tx) error) {
	d.t.Helper()
	if err := d.do(decide); err != nil {
		d.t.Fatal(err)
	}
}

func get[T any](d *desk, key string) (record T) {
	d.t.Helper()
	var doc json.RawMessage
	if _, err := d.store.Get(d.t.Context(), key, &doc); err != nil {
		d.t.Fatal(err)
	}
	if doc == nil {
		return record
	}
	contractstest.Record(d.t, key, doc)
	if err := json.Unmarshal(doc, &record); err != nil {
		d.t.Fatal(err)
	}
	return record
}

func (d *desk) out() (is bool) {
	d.t.Helper()
	d.must(func(tx *state.Tx) (err error) {
		is, err = consent.Out(tx, digits)
		return err
	})
	return is
}

func (d *desk) written() uint64 {
	d.t.Helper()
	s, err := d.nats.JetStream("operator").Stream(d.t.Context(), contracts.StreamCRM)
	if err != nil {
		d.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

func stop(hour int) func(*state.Tx) error {
	return func(tx *state.Tx) error {
		w := contracts.Word{At: at(hour), Kind: contracts.WordOptOut, Source: contracts.OptOutBySMS, Keyword: "STOP", Message: fmt.Sprintf("SM%032d", hour)}
		return consent.Enter(tx, phone, w, false)
	}
}

func start(hour int) func(*state.Tx) error {
	return func(tx *state.Tx) error {
		return consent.AskOptIn(tx, phone, contracts.Message{Stream: contracts.StreamWebhooks, Subject: contracts.SubjectInbound(digits), Sequence: uint64(100 + hour), Time: at(hour)})
	}
}

func optIn(hour int) func(*state.Tx) error {
	return func(tx *state.Tx) error { return consent.OptIn(tx, phone, at(hour), time.Time{}) }
}

// STOP, START, opt-in, STOP, START, opt-in: the second round works like the first, the
// lead follows, and everything done once more changes nothing.
func TestTheWholeLife(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.must(func(tx *state.Tx) error {
		if err := tx.Put(contracts.KeyLead("1"), contracts.Lead{ID: "1", CreatedAt: at(0), Phone: phone, ContactedAt: at(0), Status: contracts.LeadContacted}); err != nil {
			return err
		}
		return tx.Put(contracts.KeyContact(digits), contracts.Contact{Phone: phone, Leads: []string{"1"}})
	})
	life := []struct {
		does func(*state.Tx) error
		out  bool
		lead contracts.LeadStatus
	}{
		{stop(1), true, contracts.LeadOptedOut}, {start(2), true, contracts.LeadOptedOut}, {optIn(3), false, contracts.LeadContacted},
		{stop(4), true, contracts.LeadOptedOut}, {start(5), true, contracts.LeadOptedOut}, {optIn(6), false, contracts.LeadContacted},
	}
	for i, step := range life {
		for range 2 { // as after a crash between commit and acknowledgement
			if err := d.do(step.does); err != nil && !errors.Is(err, consent.ErrNotOut) {
				t.Fatalf("step %d: %v", i+1, err)
			}
		}
		if out := d.out(); out != step.out {
			t.Errorf("after step %d out is %v", i+1, out)
		}
		if l := get[contracts.Lead](d, contracts.KeyLead("1")); l.Status != step.lead {
			t.Errorf("after step %d the lead is %s", i+1, l.Status)
		}
	}
	before := d.written()
	for _, step := range life { // the stream from the beginning
		if err := d.do(step.does); err != nil && !errors.Is(err, consent.ErrNotOut) {
			t.Fatal(err)
		}
	}
	if n := d.written() - before; n != 0 || d.out() {
		t.Errorf("a replay wrote %d messages, and out is %v", n, d.out())
	}
	o := get[contracts.OptOut](d, contracts.KeyOptOut(digits))
	if len(o.History) != 4 || !o.OptedOutAt.Equal(at(4)) || !o.OptedInAt.Equal(at(6)) {
		t.Errorf("%+v", o)
	}
}

// A person who allows texts because of a START does not see the STOP that came after it.
func TestANewerStopStands(t *testing.T) {
	t.Parallel()
	d := open(t)
	for _, step := range []func(*state.Tx) error{stop(1), start(2), stop(3)} {
		d.must(step)
	}
	if err := d.do(optIn(4)); !errors.Is(err, consent.ErrNewerStop) {
		t.Errorf("opt-in: %v", err)
	}
	if !d.out() {
		t.Error("the last STOP does not stand")
	}
	// Asked again in person, an hour later.
	d.must(func(tx *state.Tx) error { return consent.OptIn(tx, phone, at(6), at(5)) })
	if d.out() {
		t.Error("a newer request is not heard")
	}
	if err := d.do(optIn(7)); !errors.Is(err, consent.ErrNotOut) {
		t.Errorf("nothing to undo: %v", err)
	}
}

// The words may come in any order and twice; the record is the same, and the last decides.
func TestAnyOrderOfWords(t *testing.T) {
	t.Parallel()
	d := open(t)
	number := 10000
	rapid.Check(t, func(rt *rapid.T) {
		words := []contracts.Word{{At: at(0), Kind: contracts.WordOptOut, Source: contracts.OptOutByProvider}}
		for range rapid.IntRange(1, 8).Draw(rt, "words") {
			w := contracts.Word{At: at(rapid.IntRange(1, 5).Draw(rt, "hour")), Source: contracts.OptOutByOperator, Kind: contracts.WordOptIn}
			if rapid.Bool().Draw(rt, "out") {
				w.Kind, w.Source, w.Message = contracts.WordOptOut, contracts.OptOutBySMS, fmt.Sprintf("SM%d", rapid.IntRange(1, 3).Draw(rt, "sid"))
			}
			words = append(words, w)
		}
		var seen [2]contracts.OptOut
		for round := range seen {
			number++
			number := fmt.Sprintf("+3363998%05d", number)
			key := contracts.KeyOptOut(number[1:])
			order := rapid.Permutation(append(slices.Clone(words), words[0])).Draw(rt, "order")
			for _, w := range order {
				d.must(func(tx *state.Tx) error { return consent.Enter(tx, number, w, false) })
			}
			seen[round] = get[contracts.OptOut](d, key)
			seen[round].Phone = ""
			var out bool
			d.must(func(tx *state.Tx) (err error) { out, err = consent.Out(tx, number[1:]); return err })
			// The last word by the clock; at the same moment the opt-out stands.
			last := slices.MaxFunc(words, func(a, b contracts.Word) int {
				if c := a.At.Compare(b.At); c != 0 {
					return c
				}
				return map[string]int{contracts.WordOptIn: 0, contracts.WordOptOut: 1}[a.Kind] - map[string]int{contracts.WordOptIn: 0, contracts.WordOptOut: 1}[b.Kind]
			})
			if out != (last.Kind == contracts.WordOptOut) {
				rt.Fatalf("out is %v after %+v", out, words)
			}
		}
		if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
			rt.Fatalf("two orders differ:\n%s", diff)
		}
	})
}

// A number in 1,300 leads takes several commits, and all leads follow, there and back.
func TestANumberInManyLeads(t *testing.T) {
	t.Parallel()
	d := open(t)
	const n = 1300
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%05d", i)
	}
	for i, err := range d.store.Fold(t.Context(), n, func(tx *state.Tx, i int) error {
		return tx.Put(contracts.KeyLead(ids[i]), contracts.Lead{ID: ids[i], CreatedAt: at(0), Phone: phone, Status: contracts.LeadNew})
	}, nil) {
		if err != nil {
			t.Fatalf("lead %d: %v", i, err)
		}
	}
	d.must(func(tx *state.Tx) error {
		return tx.Put(contracts.KeyContact(digits), contracts.Contact{Phone: phone, Leads: ids})
	})
	count := func(status contracts.LeadStatus) (c int) {
		d.must(func(tx *state.Tx) error {
			c = 0
			keys := make([]string, n)
			for i, id := range ids {
				keys[i] = contracts.KeyLead(id)
			}
			if err := tx.Need(keys...); err != nil {
				return err
			}
			for _, k := range keys {
				l, _, err := state.Peek[contracts.Lead](tx, k)
				if err != nil {
					return err
				}
				if l.Status == status {
					c++
				}
			}
			return nil
		})
		return c
	}
	// Folded with another number's, which must not suffer.
	errs := d.store.Fold(t.Context(), 2, func(tx *state.Tx, i int) error {
		if i == 0 {
			return stop(1)(tx)
		}
		return consent.Enter(tx, "+33639980103", contracts.Word{At: at(1), Kind: contracts.WordOptOut, Source: contracts.OptOutBySMS}, false)
	}, nil)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if c := count(contracts.LeadOptedOut); c != n {
		t.Errorf("%d of %d leads are opted out", c, n)
	}
	d.must(optIn(2))
	if c := count(contracts.LeadNew); c != n {
		t.Errorf("%d of %d leads are back", c, n)
	}
}

// What the former release has left: an opt-out without history, one that an operator wrote
// by hand without a time, and an opt-in that stood in the contact.
func TestFormerRecords(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		optout  any
		contact contracts.Contact
		out     bool
	}{
		"an opt-out":                  {contracts.OptOut{Phone: phone, OptedOutAt: at(1), Keyword: "STOP", MessageSID: "SM1", Source: contracts.OptOutBySMS}, contracts.Contact{Phone: phone, OptedOutAt: at(1)}, true},
		"one by hand":                 {map[string]string{"phone": phone, "source": "operator"}, contracts.Contact{Phone: phone}, true},
		"one by hand, with a time":    {map[string]string{"phone": phone, "opted_out_at": "2026-11-24T10:00:00Z", "source": "operator"}, contracts.Contact{}, true},
		"an opt-in in the contact":    {nil, contracts.Contact{Phone: phone, OptedInAt: at(2)}, false},
		"a STOP before that opt-in":   {contracts.OptOut{Phone: phone, OptedOutAt: at(1), Source: contracts.OptOutBySMS}, contracts.Contact{Phone: phone, OptedInAt: at(2)}, false},
		"a STOP after that opt-in":    {contracts.OptOut{Phone: phone, OptedOutAt: at(3), Source: contracts.OptOutBySMS}, contracts.Contact{Phone: phone, OptedInAt: at(2), OptedOutAt: at(3)}, true},
		"a contact that is out alone": {nil, contracts.Contact{Phone: phone, OptedOutAt: at(1)}, true},
		"nothing":                     {nil, contracts.Contact{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t)
			d.must(func(tx *state.Tx) error {
				if tt.optout != nil {
					if err := tx.Put(contracts.KeyOptOut(digits), tt.optout); err != nil {
						return err
					}
				}
				if tt.contact.Phone == "" {
					return nil
				}
				return tx.Put(contracts.KeyContact(digits), tt.contact)
			})
			if out := d.out(); out != tt.out {
				t.Errorf("out is %v", out)
			}
		})
	}
}

// An unclear text is for a person: a welcome waits until one of the two commands is run.
func TestUnclear(t *testing.T) {
	t.Parallel()
	unclear := func(tx *state.Tx) error {
		return consent.AskUnclear(tx, phone, contracts.Message{Stream: contracts.StreamWebhooks, Sequence: 9, Subject: contracts.SubjectInbound(digits), Time: at(1)})
	}
	for name, decide := range map[string]func(*state.Tx) error{
		"no opt-out": func(tx *state.Tx) error { return consent.NoOptOut(tx, phone, at(2)) },
		"opt-out":    func(tx *state.Tx) error { return consent.OptOut(tx, phone, at(2)) },
		"a STOP":     stop(2),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t)
			d.must(unclear)
			if c := get[contracts.Contact](d, contracts.KeyContact(digits)); !consent.Unclear(c) {
				t.Errorf("%+v", c)
			}
			d.must(decide)
			if c := get[contracts.Contact](d, contracts.KeyContact(digits)); consent.Unclear(c) {
				t.Errorf("decided: %+v", c)
			}
			if out := d.out(); out != (name != "no opt-out") {
				t.Errorf("out is %v", out)
			}
			before := d.written()
			d.must(unclear)
			if n := d.written() - before; n != 0 {
				t.Errorf("a replay wrote %d messages", n)
			}
		})
	}
}
