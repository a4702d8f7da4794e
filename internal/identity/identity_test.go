package identity_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
	"leadpipe/internal/natstest"
	"leadpipe/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(tb testing.TB) *state.Store {
	tb.Helper()
	return state.New(natstest.New(tb, natstest.LazySync).JetStream("consumers"), nil)
}

func get[T any](tb rapid.TB, s *state.Store, key string) (record T, ok bool) {
	tb.Helper()
	ok, err := s.Get(context.Background(), key, &record)
	if err != nil {
		tb.Fatal(err)
	}
	return record, ok
}

func update(tb rapid.TB, s *state.Store, decide func(*state.Tx) error) {
	tb.Helper()
	if err := s.Update(context.Background(), decide); err != nil {
		tb.Fatal(err)
	}
}

func day(n int) time.Time { return time.Date(2026, 11, n, 9, 0, 0, 0, time.UTC) }

// named is a lead id that stood in an object's metadata, or as client_reference_id.
func named(kind string, ids ...string) (refs []contracts.LeadRef) {
	for _, id := range ids {
		refs = append(refs, contracts.LeadRef{ID: id, Kind: kind, At: day(1), Event: "evt_1"})
	}
	return refs
}

// merge stores a customer as billing does: what is known of it only grows.
func merge(tx *state.Tx, add contracts.Customer) error {
	c, _, err := state.Get[contracts.Customer](tx, contracts.KeyCustomer(add.ID))
	if err != nil {
		return err
	}
	return identity.SetCustomer(tx, grown(c, add))
}

func grown(c, add contracts.Customer) contracts.Customer {
	c.ID = add.ID
	union := func(a, b []string) []string { return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b)))) }
	c.Emails, c.Phones = union(c.Emails, add.Emails), union(c.Phones, add.Phones)
	for _, r := range add.Refs {
		if !slices.Contains(c.Refs, r) {
			c.Refs = append(slices.Clone(c.Refs), r)
		}
	}
	// As billing sorts them: metadata, which comes first in the alphabet, then by time.
	slices.SortFunc(c.Refs, func(a, b contracts.LeadRef) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), a.At.Compare(b.At), strings.Compare(a.ID, b.ID))
	})
	c.LiveMode, c.Account = add.LiveMode, add.Account
	if !add.Since.IsZero() {
		c.Since, c.Status = day(1), max(c.Status, add.Status)
	}
	return c
}

func TestWhoBelongsTogether(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var next atomic.Int64
	const client, churned = contracts.CustomerClient, contracts.CustomerChurned
	// In the cases phones are "p", e-mails "e", leads "1", "2", customers "a", "b".
	for _, tt := range []struct {
		name      string
		leads     []contracts.Lead
		customers []contracts.Customer
		want      string // lead→customer status, then customer→lead
	}{
		{"a shared phone makes a client of the lead",
			[]contracts.Lead{{ID: "1", Phone: "p"}}, []contracts.Customer{{ID: "a", Phones: []string{"p"}, Since: day(1), Status: client}},
			"1→a client, a→1"},
		{"a shared e-mail makes a client of the lead, whatever its case",
			[]contracts.Lead{{ID: "1", Email: "E "}}, []contracts.Customer{{ID: "a", Emails: []string{"e"}, Since: day(1), Status: client}},
			"1→a client, a→1"},
		{"a lead named by its id outweighs an earlier one with the phone",
			[]contracts.Lead{{ID: "1", Phone: "p", CreatedAt: day(1)}, {ID: "2", CreatedAt: day(2)}},
			[]contracts.Customer{{ID: "a", Refs: named("reference", "2"), Phones: []string{"p"}, Since: day(1), Status: client}},
			"1→a client, 2→a client, a→2"},
		{"the phone outweighs the e-mail",
			[]contracts.Lead{{ID: "1", Email: "e", CreatedAt: day(1)}, {ID: "2", Phone: "p", CreatedAt: day(2)}},
			[]contracts.Customer{{ID: "a", Phones: []string{"p"}, Emails: []string{"e"}, Since: day(1), Status: client}},
			"1→a client, 2→a client, a→2"},
		{"of two leads with the phone the earliest is the customer's",
			[]contracts.Lead{{ID: "1", Phone: "p", CreatedAt: day(2)}, {ID: "2", Phone: "p", CreatedAt: day(1)}},
			[]contracts.Customer{{ID: "a", Phones: []string{"p"}, Since: day(1), Status: client}},
			"1→a client, 2→a client, a→2"},
		{"a name that no lead bears does not hide the phone",
			[]contracts.Lead{{ID: "1", Phone: "p"}}, []contracts.Customer{{ID: "a", Refs: named("metadata", "9"), Phones: []string{"p"}, Since: day(1), Status: client}},
			"1→a client, a→1"},
		{"a name that no lead bears links nobody, until the lead comes",
			nil, []contracts.Customer{{ID: "a", Refs: named("metadata", "9"), Since: day(1), Status: client}},
			"a→"},
		{"metadata outweighs client_reference_id",
			[]contracts.Lead{{ID: "1"}, {ID: "2"}},
			[]contracts.Customer{{ID: "a", Refs: slices.Concat(named("metadata", "2"), named("reference", "1")), Since: day(1), Status: client}},
			"1→ new, 2→a client, a→2"},
		{"metadata that no lead bears does not hide client_reference_id",
			[]contracts.Lead{{ID: "1"}},
			[]contracts.Customer{{ID: "a", Refs: slices.Concat(named("metadata", "9"), named("reference", "1")), Since: day(1), Status: client}},
			"1→a client, a→1"},
		{"who named the lead and left does not outweigh who came back",
			[]contracts.Lead{{ID: "1", Phone: "p"}},
			[]contracts.Customer{{ID: "a", Refs: named("metadata", "1"), Since: day(1), Status: churned}, {ID: "b", Phones: []string{"p"}, Since: day(2), Status: client}},
			"1→b client, a→1, b→1"},
		{"a test customer changes nothing where a real one is known",
			[]contracts.Lead{{ID: "1", Phone: "p"}},
			[]contracts.Customer{{ID: "a", Phones: []string{"p"}, Since: day(1), Status: churned},
				{ID: "b", Refs: named("metadata", "1"), LiveMode: new(false), Since: day(1), Status: client}},
			"1→a churned, a→1, b→1"},
		{"tests alone link as if they were real",
			[]contracts.Lead{{ID: "1", Phone: "p"}},
			[]contracts.Customer{{ID: "a", Phones: []string{"p"}, LiveMode: new(false), Since: day(1), Status: client}},
			"1→a client, a→1"},
		{"a connected account's customer changes nothing where an own one is known",
			[]contracts.Lead{{ID: "1", Phone: "p"}},
			[]contracts.Customer{{ID: "a", Phones: []string{"p"}, Since: day(1), Status: client}, {ID: "b", Phones: []string{"p"}, Account: "acct_1", Since: day(1), Status: churned}},
			"1→a client, a→1, b→1"},
		{"who came back as a new customer is a client",
			[]contracts.Lead{{ID: "1", Phone: "p", Email: "e"}},
			[]contracts.Customer{{ID: "a", Phones: []string{"p"}, Since: day(1), Status: churned}, {ID: "b", Emails: []string{"e"}, Since: day(1), Status: client}},
			"1→b client, a→1, b→1"},
		{"who left is churned",
			[]contracts.Lead{{ID: "1", Phone: "p"}}, []contracts.Customer{{ID: "a", Phones: []string{"p"}, Since: day(1), Status: churned}},
			"1→a churned, a→1"},
		{"a customer that never paid converts nobody",
			[]contracts.Lead{{ID: "1", Phone: "p"}}, []contracts.Customer{{ID: "a", Phones: []string{"p"}}},
			"1→ new, a→1"},
		{"a number that can't be texted links nobody",
			[]contracts.Lead{{ID: "1", Phone: "p", PhoneIssue: "not_mobile"}}, []contracts.Customer{{ID: "a", Phones: []string{"p"}, Since: day(1), Status: client}},
			"1→ new, a→"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, leadsFirst := range []bool{true, false} {
				w := names{int(next.Add(1))}
				var ops []func(*state.Tx) error
				for _, l := range tt.leads {
					ops = append(ops, func(tx *state.Tx) error { return identity.SetLead(tx, w.lead(l)) })
				}
				for _, c := range tt.customers {
					ops = append(ops, func(tx *state.Tx) error { return merge(tx, w.customer(c)) })
				}
				if !leadsFirst {
					slices.Reverse(ops)
				}
				for _, op := range ops {
					update(t, s, op)
				}
				var got []string
				for _, l := range tt.leads {
					r, _ := get[contracts.Lead](t, s, contracts.KeyLead(w.id(l.ID)))
					got = append(got, fmt.Sprintf("%s→%s %s", l.ID, w.bare(r.CustomerID), r.Status))
				}
				for _, c := range tt.customers {
					r, _ := get[contracts.Customer](t, s, contracts.KeyCustomer(w.id(c.ID)))
					got = append(got, c.ID+"→"+w.bare(r.LeadID))
				}
				if g := strings.Join(got, ", "); g != tt.want {
					t.Errorf("leads first %v: %s, want %s", leadsFirst, g, tt.want)
				}
			}
		})
	}
}

func TestALeadThatComesAfterTheOptOutIsOptedOut(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const phone = "+33639980102"
	update(t, s, func(tx *state.Tx) error {
		return tx.Put(contracts.KeyContact(phone[1:]), contracts.Contact{Phone: phone, OptedOutAt: day(3)})
	})
	update(t, s, func(tx *state.Tx) error { return identity.SetLead(tx, contracts.Lead{ID: "1", Phone: phone}) })
	lead, _ := get[contracts.Lead](t, s, contracts.KeyLead("1"))
	if lead.Status != contracts.LeadOptedOut || !lead.OptedOutAt.Equal(day(3)) {
		t.Errorf("%s since %s", lead.Status, lead.OptedOutAt)
	}
}

func TestAReplayedLeadKeepsWhatHappenedToIt(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	form := contracts.Lead{ID: "1", Phone: "+33639980102", Name: "Camille"}
	update(t, s, func(tx *state.Tx) error { return identity.SetLead(tx, form) })
	update(t, s, func(tx *state.Tx) error {
		lead, _, err := state.Get[contracts.Lead](tx, contracts.KeyLead("1"))
		if err != nil {
			return err
		}
		lead.ContactedAt = day(4)
		return identity.SetLead(tx, lead)
	})
	before, _ := get[contracts.Lead](t, s, contracts.KeyLead("1"))
	update(t, s, func(tx *state.Tx) error { return identity.SetLead(tx, form) })
	after, _ := get[contracts.Lead](t, s, contracts.KeyLead("1"))
	if diff := gocmp.Diff(before, after); diff != "" || after.Status != contracts.LeadContacted {
		t.Errorf("status %s, (-before +after):\n%s", after.Status, diff)
	}
}

// TestAnyOrderGivesTheSameLinks draws a few leads and customers that share phones and
// e-mails, stores them in two orders, folded and repeated, and compares all records
// with each other and with what the rules say when looked at from scratch.
func TestAnyOrderGivesTheSameLinks(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	check := 0
	rapid.Check(t, func(t *rapid.T) {
		pick := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
		var leads []contracts.Lead
		for i := range rapid.IntRange(1, 4).Draw(t, "leads") {
			leads = append(leads, contracts.Lead{ID: fmt.Sprint(i + 1), CreatedAt: day(rapid.IntRange(1, 2).Draw(t, "day")),
				Phone: pick("phone", "", "p", "q"), Email: pick("email", "", "e", "f")})
		}
		var adds []contracts.Customer
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			c := contracts.Customer{ID: pick("customer", "a", "b", "c"), Refs: named(pick("kind", "metadata", "reference"), pick("ref", "1", "2", "3", "9")),
				Phones: []string{pick("phone", "p", "q", "r")}, Emails: []string{pick("email", "e", "f", "g")}}
			if rapid.Bool().Draw(t, "nameless") {
				c.Refs = nil
			}
			if rapid.Bool().Draw(t, "paid") {
				c.Since, c.Status = day(1), contracts.CustomerStatus(pick("status", "client", "suspended", "churned"))
			}
			adds = append(adds, c)
		}
		var seen [2]string
		for round := range seen {
			check++
			w := names{1000 + check}
			var ops []func(*state.Tx) error
			for _, l := range leads {
				ops = append(ops, func(tx *state.Tx) error { return identity.SetLead(tx, w.lead(l)) })
			}
			for _, c := range adds {
				ops = append(ops, func(tx *state.Tx) error { return merge(tx, w.customer(c)) })
			}
			ops = append(ops, ops[rapid.IntRange(0, len(ops)-1).Draw(t, "again")])
			for ops = rapid.Permutation(ops).Draw(t, "order"); len(ops) > 0; {
				n := rapid.IntRange(1, len(ops)).Draw(t, "fold")
				for _, err := range s.Fold(t.Context(), n, func(tx *state.Tx, i int) error { return ops[i](tx) }, nil) {
					if err != nil {
						t.Fatal(err)
					}
				}
				ops = ops[n:]
			}
			seen[round] = w.bare(dump(t, s, w, leads, adds))
		}
		if diff := gocmp.Diff(seen[0], seen[1]); diff != "" {
			t.Fatalf("two orders differ:\n%s", diff)
		}
		if diff := gocmp.Diff(links(leads, adds), seen[0]); diff != "" {
			t.Fatalf("(-rules +stored):\n%s", diff)
		}
	})
}

// links looks at everybody at once.
func links(leads []contracts.Lead, adds []contracts.Customer) string {
	customers := map[string]contracts.Customer{}
	for _, a := range adds {
		customers[a.ID] = grown(customers[a.ID], a)
	}
	// named is the lead that a customer's events name, if it exists.
	named := func(c contracts.Customer) string {
		for _, kind := range []string{"metadata", "reference"} {
			for _, r := range c.Refs {
				if r.Kind == kind && slices.ContainsFunc(leads, func(l contracts.Lead) bool { return l.ID == r.ID }) {
					return r.ID
				}
			}
		}
		return ""
	}
	// how says in which way the two belong together; 9: not at all.
	how := func(l contracts.Lead, c contracts.Customer) int {
		switch {
		case named(c) == l.ID:
			return 0
		case slices.Contains(c.Phones, l.Phone):
			return 1
		case slices.Contains(c.Emails, l.Email):
			return 2
		}
		return 9
	}
	var out []string
	for _, l := range leads {
		best, score := contracts.Customer{}, "z"
		for _, c := range customers {
			if h := how(l, c); h < 9 && !c.Since.IsZero() {
				if s := fmt.Sprint(c.Status == contracts.CustomerChurned, h, c.ID); s < score {
					best, score = c, s
				}
			}
		}
		l.CustomerID, l.CustomerStatus = best.ID, best.Status
		l.Settle()
		out = append(out, fmt.Sprintf("lead %s: %s %s", l.ID, best.ID, l.Status))
	}
	for _, id := range slices.Sorted(maps.Keys(customers)) {
		c := customers[id]
		best, far := contracts.Lead{}, 9
		for _, l := range leads {
			if h := how(l, c); h < 9 && cmp.Or(h-far, l.CreatedAt.Compare(best.CreatedAt), strings.Compare(l.ID, best.ID)) < 0 {
				best, far = l, h
			}
		}
		out = append(out, fmt.Sprintf("customer %s: %s", id, best.ID))
	}
	return strings.Join(out, "\n")
}

func dump(t *rapid.T, s *state.Store, w names, leads []contracts.Lead, adds []contracts.Customer) string {
	var out []string
	for _, l := range leads {
		r, _ := get[contracts.Lead](t, s, contracts.KeyLead(w.id(l.ID)))
		out = append(out, fmt.Sprintf("lead %s: %s %s", l.ID, r.CustomerID, r.Status))
	}
	ids := map[string]bool{}
	for _, a := range adds {
		ids[a.ID] = true
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		r, _ := get[contracts.Customer](t, s, contracts.KeyCustomer(w.id(id)))
		out = append(out, fmt.Sprintf("customer %s: %s", id, r.LeadID))
	}
	return strings.Join(out, "\n")
}

// names gives each check its own people on the one server.
type names struct{ check int }

func (w names) prefix() string { return fmt.Sprintf("x%dx", w.check) }

func (w names) id(s string) string {
	if s == "" {
		return ""
	}
	return w.prefix() + s
}

func (w names) bare(s string) string { return strings.ReplaceAll(s, w.prefix(), "") }

func (w names) phone(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf("+3363998%06d%d", w.check, s[0])
}

func (w names) email(s string) string {
	if s == "" {
		return ""
	}
	return w.prefix() + s
}

func (w names) lead(l contracts.Lead) contracts.Lead {
	l.ID, l.Phone, l.Email = w.id(l.ID), w.phone(l.Phone), w.email(l.Email)
	return l
}

func (w names) customer(c contracts.Customer) contracts.Customer {
	c.ID = w.id(c.ID)
	c.Refs = slices.Clone(c.Refs)
	for i := range c.Refs {
		c.Refs[i].ID = w.id(c.Refs[i].ID)
	}
	c.Phones, c.Emails = slices.Clone(c.Phones), slices.Clone(c.Emails)
	for i, p := range c.Phones {
		c.Phones[i] = w.phone(p)
	}
	for i, e := range c.Emails {
		c.Emails[i] = w.email(e)
	}
	return c
}
