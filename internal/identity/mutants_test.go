package identity_test

import (
	"slices"
	"testing"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
	"leadpipe/internal/state"
)

// What follows are rules that could be broken without any other test's noticing, as
// `make mutants` found.

// Real money counts before tests, and the own account before connected ones.
// https://docs.stripe.com/api/events/object#event_object-livemode
// https://docs.stripe.com/connect/webhooks
func TestMutantWorlds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		live    *bool
		account string
		want    identity.World
	}{
		{nil, "", "live"}, {new(true), "", "live"}, {new(false), "", "test"},
		{nil, "acct_1", "acct_1"}, {new(true), "acct_1", "acct_1"}, {new(false), "acct_1", "acct_1/test"},
	} {
		if got := identity.Of(contracts.Customer{LiveMode: tt.live, Account: tt.account}); got != tt.want {
			t.Errorf("%v of %q: %q, want %q", tt.live, tt.account, got, tt.want)
		}
	}
	order := []identity.World{"live", "acct_1", "acct_2", "test", "acct_1/test", "acct_2/test"}
	for i, a := range order {
		for j, b := range order {
			if a.Before(b) != (i < j) {
				t.Errorf("%s before %s: %v", a, b, a.Before(b))
			}
		}
	}
}

func wantLead(t *testing.T, s *state.Store, id, customer string, status contracts.LeadStatus) {
	t.Helper()
	if l, _ := get[contracts.Lead](t, s, contracts.KeyLead(id)); l.CustomerID != customer || l.Status != status {
		t.Errorf("lead %s is %s of %q, want %s of %q", id, l.Status, l.CustomerID, status, customer)
	}
}

func set(t *testing.T, s *state.Store, customers ...contracts.Customer) {
	t.Helper()
	for _, c := range customers {
		c.Since, c.Status = day(1), contracts.CustomerClient
		update(t, s, func(tx *state.Tx) error { return identity.SetCustomer(tx, c) })
	}
}

func setLead(t *testing.T, s *state.Store, l contracts.Lead) {
	t.Helper()
	update(t, s, func(tx *state.Tx) error { return identity.SetLead(tx, l) })
}

// A lead that a test's customer and a real one name is the real one's, whichever id comes
// first; where real ones are known to exist, a test alone makes no client.
func TestMutantARealCustomerBeforeATest(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	setLead(t, s, contracts.Lead{ID: "1", Phone: "+33639980102"})
	a := contracts.Customer{ID: "a", Phones: []string{"+33639980102"}, LiveMode: new(false)}
	set(t, s, a)
	wantLead(t, s, "1", "a", contracts.LeadClient)
	set(t, s, contracts.Customer{ID: "b", Phones: []string{"+33639980102"}})
	wantLead(t, s, "1", "b", contracts.LeadClient)
	update(t, s, func(tx *state.Tx) error {
		return tx.Put(contracts.KeyStripe, contracts.StripeAccounts{Worlds: []string{"test"}})
	})
	set(t, s, a) // what is noted of the account is behind
	wantLead(t, s, "1", "b", contracts.LeadClient)
	update(t, s, func(tx *state.Tx) error {
		return tx.Put(contracts.KeyStripe, contracts.StripeAccounts{Worlds: []string{"live"}})
	})
	setLead(t, s, contracts.Lead{ID: "2", Phone: "+33639980103"})
	set(t, s, contracts.Customer{ID: "c", Phones: []string{"+33639980103"}, LiveMode: new(false)})
	wantLead(t, s, "2", "", contracts.LeadNew)
}

// An id that a test used, and that real events use now, frees the lead of the test.
func TestMutantALeadIsFreed(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	setLead(t, s, contracts.Lead{ID: "1"})
	set(t, s, contracts.Customer{ID: "a", Refs: named("metadata", "1"), LiveMode: new(false)})
	wantLead(t, s, "1", "a", contracts.LeadClient)
	set(t, s, contracts.Customer{ID: "a"})
	wantLead(t, s, "1", "", contracts.LeadNew)
}

// A lead whose id a form named, and which is somebody else, is nobody's for having an
// e-mail address; nor is one without an address for that.
func TestMutantAnAddressThatIsNotShared(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	setLead(t, s, contracts.Lead{ID: "1"})
	setLead(t, s, contracts.Lead{ID: "2", Email: "somebody@example.com"})
	set(t, s, contracts.Customer{ID: "a", Refs: slices.Concat(named("metadata", "1"), named("reference", "2")), Emails: []string{"camille@example.com"}})
	wantLead(t, s, "1", "a", contracts.LeadClient)
	wantLead(t, s, "2", "", contracts.LeadNew)
}

// A record of the former release names its lead in another field.
func TestMutantTheFormerRelease(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	setLead(t, s, contracts.Lead{ID: "1"})
	set(t, s, contracts.Customer{ID: "a", LeadRef: "1"})
	wantLead(t, s, "1", "a", contracts.LeadClient)
	if c, _ := get[contracts.Customer](t, s, contracts.KeyCustomer("a")); c.LeadID != "1" {
		t.Errorf("the customer's lead is %q", c.LeadID)
	}
}

// Who has opted out stays so when the form comes again, also without a number that could
// be a contact; and a number that could not be read is no contact.
func TestMutantALeadWithoutANumber(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for id, phone := range map[string]string{"1": "", "2": "0639980102"} {
		setLead(t, s, contracts.Lead{ID: id, Phone: phone, OptedOutAt: day(3)})
		setLead(t, s, contracts.Lead{ID: id, Phone: phone})
		if l, _ := get[contracts.Lead](t, s, contracts.KeyLead(id)); !l.OptedOutAt.Equal(day(3)) || l.Status != contracts.LeadOptedOut {
			t.Errorf("%q: %s since %v", phone, l.Status, l.OptedOutAt)
		}
	}
	if c, ok := get[contracts.Contact](t, s, contracts.KeyContact("0639980102")); ok {
		t.Errorf("%+v", c)
	}
}
