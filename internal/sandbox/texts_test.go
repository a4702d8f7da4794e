package sandbox_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/sandbox"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/sandbox/twilio"
	"leadpipe/internal/state"
)

// A street is a pipeline with people who own phones.
type street struct {
	*sandbox.Sandbox
	t     *testing.T
	store *state.Store
}

// newStreet starts a pipeline whose texts say who writes, which asks for consent, and
// some of whose phones are out of order: those that end in 3007 are filtered by their
// carrier, those in 1610 blocked at Twilio, those in 7xxx reached by RCS.
func newStreet(t *testing.T) *street {
	t.Helper()
	s, _ := startWith(t, func(o *sandbox.Options) {
		o.Latency = time.Millisecond
		o.Consumers = func(c *consumersd.Config) {
			c.Company, c.ContactText, c.Consent = "Atelier Martin", "{{.Company}}, 01 99 00 00 00", "sms"
		}
		o.Phones = func(o *twilio.Options) {
			o.MagicNumbers = true
			o.RCS = func(to string) bool { return strings.HasPrefix(to, "+33639987") }
			o.Undelivered = func(to string) int {
				if strings.HasSuffix(to, "3017") {
					return 30007
				}
				return 0
			}
		}
	})
	return &street{s, t, state.New(s.JS, nil)}
}

// form has somebody fill in a form and gives the lead's key.
func (s *street) form(id int, phone string, ticked bool) string {
	s.t.Helper()
	l := meta.Lead{ID: fmt.Sprint(id), CreatedTime: time.Now(), PageID: "100000000000101", FormID: "100000000000202", Platform: "fb",
		Fields:      []meta.Field{{Name: "full_name", Values: []string{"Zoé Martin"}}, {Name: "phone_number", Values: []string{phone}}},
		Disclaimers: []meta.Disclaimer{{CheckboxKey: "sms", IsChecked: ticked}}}
	s.Meta.AddLead(l)
	send(s.t, s.Sandbox, delivery{path: "/api/webhooks/facebook", body: meta.Webhook(meta.AsStrings, l)})
	return contracts.KeyLead(l.ID)
}

// texts has somebody text us.
func (s *street) texts(from, body, optOutType string) {
	s.t.Helper()
	r, err := s.Twilio.Inbound(s.t.Context(), twilio.Inbound{From: from, Body: body, OptOutType: optOutType})
	if err != nil || r.Status != 200 {
		s.t.Fatalf("%q from %s: %d, %v", body, from, r.Status, err)
	}
}

// await waits for a record to be as wanted.
func await[T any](s *street, what, key string, ok func(T) bool) T {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var record T
		found, err := s.store.Get(s.t.Context(), key, &record)
		if err != nil {
			s.t.Fatal(err)
		}
		if found && ok(record) {
			return record
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: %s is %+v", what, key, record)
		}
	}
}

func (s *street) welcome(lead string) string {
	return contracts.KeySMS(contracts.SMSWelcome, strings.TrimPrefix(lead, "lead."))
}

// calm waits until every webhook and every change is handled.
func (s *street) calm() {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); s.Busy(s.t.Context()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("the pipeline does not come to rest")
		}
	}
}

// rang counts the texts that a phone got.
func (s *street) rang(phone string) (n int) {
	for _, m := range s.Twilio.Messages() {
		if strings.HasSuffix(m.To, phone) {
			n++
		}
	}
	return n
}

func status(want contracts.SMSStatus) func(contracts.SMS) bool {
	return func(r contracts.SMS) bool { return r.Status == want }
}

func TestATextSaysWhoWritesAndHowLongItMayTake(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	lead := s.form(1001, "06 39 98 00 01", true)
	await(s, "a welcome", s.welcome(lead), status(contracts.SMSDelivered))
	m := s.Twilio.Messages()[0]
	if !strings.HasPrefix(m.Body, "Atelier Martin : ") || m.ValidityPeriod < 1 || m.ValidityPeriod > 36000 || !strings.HasSuffix(m.StatusCallback, "#rc=3&rp=ct,rt,5xx") {
		t.Errorf("the welcome is %+v", m)
	}
	if l := await(s, "contacted", lead, func(l contracts.Lead) bool { return l.Status == contracts.LeadContacted }); l.NoWelcome != "" {
		t.Errorf("the lead is %+v", l)
	}
}

func TestNoWelcomeWithoutTheBox(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	lead := s.form(1002, "+33639980002", false)
	if l := await(s, "a lead", lead, func(contracts.Lead) bool { return true }); l.NoWelcome != "consent" || l.Status != contracts.LeadNew {
		t.Errorf("the lead is %+v", l)
	}
	s.calm()
	if n := s.rang("+33639980002"); n != 0 {
		t.Errorf("%d texts to somebody who has not consented", n)
	}
}

// A carrier that filters a text says so minutes later. The person was not reached then.
// https://www.twilio.com/docs/api/errors/30007
func TestUndeliveredIsNotContacted(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	begin := time.Now().UTC().Format(time.DateOnly)
	for i, phone := range []string{"+33639983007", "+33639983017"} {
		lead := s.form(1010+i, phone, true)
		await(s, "a filtered welcome", s.welcome(lead), status(contracts.SMSUndelivered))
		if l := await(s, "a lead that was not reached", lead, func(l contracts.Lead) bool { return l.ContactedAt.IsZero() }); l.Status != contracts.LeadNew {
			t.Errorf("the lead is %s", l.Status)
		}
	}
	// One incident a day and code; the two texts may be of two days.
	count := 0
	for _, day := range slices.Compact([]string{begin, time.Now().UTC().Format(time.DateOnly)}) {
		var in contracts.Incident
		if found, err := s.store.Get(t.Context(), contracts.KeyIncident("sms-lost-30007-"+day), &in); err != nil || !found {
			continue
		}
		count += in.Count
		if !strings.Contains(in.Reason, "30007") || !in.ResolvedAt.IsZero() {
			t.Errorf("the incident is %+v", in)
		}
	}
	if count != 2 {
		t.Errorf("the day's incident counts %d texts that a carrier filtered", count)
	}
	// The next text that arrives is a good sign, and takes nothing of today's account.
	await(s, "a welcome", s.welcome(s.form(1012, "+33639980012", true)), status(contracts.SMSDelivered))
}

// Twilio names a person that it reaches by RCS as rcs:+33…, in both directions.
// https://www.twilio.com/docs/rcs
func TestAStopByRCS(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	lead := s.form(1020, "+33639987020", true)
	await(s, "a welcome by RCS", s.welcome(lead), status(contracts.SMSDelivered))
	s.texts("rcs:+33639987020", "Arrêtez svp", "")
	o := await(s, "an opt-out", contracts.KeyOptOut("33639987020"), func(o contracts.OptOut) bool { return !o.ConfirmedAt.IsZero() })
	if o.Phone != "+33639987020" || o.Keyword != "ARRETER" && o.Keyword != "ARRET" || o.Source != contracts.OptOutBySMS {
		t.Errorf("the opt-out is %+v", o)
	}
	await(s, "the lead has opted out", lead, func(l contracts.Lead) bool { return l.Status == contracts.LeadOptedOut })
	again := s.form(1021, "06 39 98 70 20", true)
	await(s, "a new lead of the number", again, func(l contracts.Lead) bool { return l.Status == contracts.LeadOptedOut })
	s.calm()
	if n := s.rang("+33639987020"); n != 2 {
		t.Errorf("%d texts to a number that has opted out, want its welcome and the confirmation", n)
	}
}

// A text that may mean an opt-out holds the welcome until a person has decided.
func TestAnUnclearAnswerIsForAPerson(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	const phone = "+33639980030"
	s.texts(phone, "Cancel my order please", "")
	var open string
	await(s, "an incident", contracts.KeyIncidentIndex, func(ix contracts.IncidentIndex) bool {
		for _, in := range ix.Open {
			if strings.HasPrefix(in.ID, "optouts-unclear-") {
				open = contracts.KeyIncident(in.ID)
			}
		}
		return open != ""
	})
	if in := await(s, "both commands", open, func(contracts.Incident) bool { return true }); !strings.Contains(in.Action, "consumers opt-out "+phone) ||
		!strings.Contains(in.Action, "consumers no-opt-out "+phone) {
		t.Errorf("the incident's action is %q", in.Action)
	}
	lead := s.form(1030, phone, true)
	await(s, "a lead", lead, func(contracts.Lead) bool { return true })
	before := lastSequence(t, s.Sandbox, contracts.StreamCRM)
	time.Sleep(time.Second) // a held text must not be written again and again
	if after := lastSequence(t, s.Sandbox, contracts.StreamCRM); after > before+4 {
		t.Errorf("a held text was written %d times in a second", after-before)
	}
	if n := s.rang(phone); n != 0 {
		t.Fatalf("%d texts while it is not clear what the person wants", n)
	}
	if err := s.store.Update(t.Context(), func(tx *state.Tx) error { return consent.NoOptOut(tx, phone, time.Now().UTC()) }); err != nil {
		t.Fatal(err)
	}
	await(s, "the welcome after the decision", s.welcome(lead), status(contracts.SMSDelivered))
	await(s, "the incident is closed", open, func(in contracts.Incident) bool { return !in.ResolvedAt.IsZero() })
}

// What Twilio itself has blocked is an opt-out, whoever told it.
// https://www.twilio.com/docs/api/errors/21610
func TestBlockedAtTwilio(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	lead := s.form(1040, "+33639981610", true)
	await(s, "the lead has opted out", lead, func(l contracts.Lead) bool { return l.Status == contracts.LeadOptedOut })
	if o := await(s, "an opt-out", contracts.KeyOptOut("33639981610"), func(contracts.OptOut) bool { return true }); o.ProviderBlockedAt.IsZero() || o.Source != contracts.OptOutByProvider {
		t.Errorf("the opt-out is %+v", o)
	}
	s.texts("+33639980041", "Laissez-moi tranquille", "STOP")
	if o := await(s, "an opt-out", contracts.KeyOptOut("33639980041"), func(contracts.OptOut) bool { return true }); o.ProviderBlockedAt.IsZero() {
		t.Errorf("the opt-out that Twilio understood is %+v", o)
	}
}

// Whoever asks who writes is told, once a day; whoever only writes changes nothing.
func TestQuestionsAndOrdinaryTexts(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	const phone = "+33639980050"
	s.texts(phone, "CONTACT", "")
	await(s, "the answer", contracts.KeySMS(contracts.SMSContact, phone[1:]), status(contracts.SMSDelivered))
	s.texts(phone, "aide", "")
	s.texts("+33639980051", "oui je veux bien, merci", "")
	s.calm()
	if n := s.rang(phone); n != 1 {
		t.Errorf("%d answers on one day", n)
	}
	kv, err := s.JS.KeyValue(t.Context(), contracts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{contracts.KeyContact("33639980051"), contracts.KeyOptOut("33639980051"), contracts.KeyOptOut(phone[1:])} {
		if _, err := kv.Get(t.Context(), key); err != jetstream.ErrKeyNotFound {
			t.Errorf("%s after an ordinary text: %v", key, err)
		}
	}
}
