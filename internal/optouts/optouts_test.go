package optouts_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/consent"
	"leadpipe/internal/natstest"
	"leadpipe/internal/optouts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	phone  = "+33639980102"
	digits = "33639980102"
	sid    = "SM00000000000000000000000000000101"
	text   = "SM00000000000000000000000000000999" // the sid of a text of ours
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func newOptouts(tb testing.TB) *optouts.Optouts {
	tb.Helper()
	t, err := optouts.ParseText("")
	if err != nil {
		tb.Fatal(err)
	}
	o, err := optouts.New(optouts.Options{Text: t, MaxAge: 48 * time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func newStore(tb testing.TB) (*state.Store, *natstest.Server) {
	tb.Helper()
	s := natstest.New(tb, natstest.LazySync)
	return state.New(s.JetStream("consumers"), nil), s
}

// message is a webhook as it stands in the stream.
func message(subject string, at time.Time, fields map[string]string) contracts.Message {
	data, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return contracts.Message{
		Stream: contracts.StreamWebhooks, Subject: subject, Sequence: 7, Data: data, Time: noon.Add(time.Hour),
		Header: map[string]string{contracts.HeaderTime: at.Format(time.RFC3339Nano)},
	}
}

func stop(at time.Time, sid, body string) contracts.Message {
	return message(contracts.SubjectOptOut(digits), at, map[string]string{"MessageSid": sid, "From": phone, "Body": body})
}

func status(at time.Time, sms, word, code string) contracts.Message {
	return message(contracts.SubjectStatus(text), at, map[string]string{"MessageSid": text, "MessageStatus": word, "ErrorCode": code, "sms": sms, "To": phone})
}

// decide enters webhooks, all in one commit, and fails the test where one fails.
func decide(tb rapid.TB, o *optouts.Optouts, s *state.Store, msgs ...contracts.Message) {
	tb.Helper()
	events := make([]optouts.Event, len(msgs))
	for i, m := range msgs {
		var err error
		if events[i], err = o.Prepare(context.Background(), m); err != nil {
			tb.Fatal(err)
		}
	}
	for _, err := range s.Fold(context.Background(), len(msgs), func(tx *state.Tx, i int) error { return o.Decide(tx, events[i]) }, nil) {
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func put(tb rapid.TB, s *state.Store, key string, record any) {
	tb.Helper()
	if err := s.Update(context.Background(), func(tx *state.Tx) error { return tx.Put(key, record) }); err != nil {
		tb.Fatal(err)
	}
}

func get[T any](tb rapid.TB, s *state.Store, key string) (record T, ok bool) {
	tb.Helper()
	ok, err := s.Get(context.Background(), key, &record)
	if err != nil {
		tb.Fatal(err)
	}
	return record, ok
}

// last is the sequence of the bucket's stream: it grows with everything written.
func last(tb testing.TB, n *natstest.Server) uint64 {
	tb.Helper()
	st, err := n.JetStream("operator").Stream(context.Background(), contracts.StreamCRM)
	if err != nil {
		tb.Fatal(err)
	}
	return st.CachedInfo().State.LastSeq
}

func TestStopChangesEverythingAtOnce(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	o := newOptouts(t)
	for _, id := range []string{"1", "2"} {
		put(t, s, contracts.KeyLead(id), contracts.Lead{ID: id, Phone: phone, Status: contracts.LeadClient, CustomerStatus: contracts.CustomerClient})
	}
	put(t, s, contracts.KeyContact(digits), contracts.Contact{Phone: phone, Leads: []string{"1", "2"}, Customers: []string{"cus_1"}})
	before := last(t, n)
	decide(t, o, s, stop(noon, sid, "Arrêt !"))
	optout, _ := get[contracts.OptOut](t, s, contracts.KeyOptOut(digits))
	want := contracts.OptOut{Phone: phone, OptedOutAt: noon, Keyword: "ARRET", MessageSID: sid, Source: contracts.OptOutBySMS,
		History: []contracts.Word{{At: noon, Kind: "opt_out", Source: contracts.OptOutBySMS, Keyword: "ARRET", Message: sid}}}
	if diff := cmp.Diff(want, optout); diff != "" {
		t.Errorf("opt-out (-want +got):\n%s", diff)
	}
	contact, _ := get[contracts.Contact](t, s, contracts.KeyContact(digits))
	if !contact.OptedOutAt.Equal(noon) || len(contact.Customers) != 1 {
		t.Errorf("contact: %+v", contact)
	}
	for _, id := range []string{"1", "2"} {
		if lead, _ := get[contracts.Lead](t, s, contracts.KeyLead(id)); lead.Status != contracts.LeadOptedOut || !lead.OptedOutAt.Equal(noon) {
			t.Errorf("lead: %+v", lead)
		}
	}
	sms, _ := get[contracts.SMS](t, s, "sms.optout_confirmation."+digits)
	wantSMS := contracts.SMS{Kind: contracts.SMSOptOutConfirmation, To: phone, Body: "Vous êtes désabonné. Plus de SMS.",
		Status: contracts.SMSQueued, QueuedAt: noon, ExpiresAt: noon.Add(48 * time.Hour), Cause: digits}
	if diff := cmp.Diff(wantSMS, sms); diff != "" {
		t.Errorf("confirmation (-want +got):\n%s", diff)
	}
	if wrote := last(t, n) - before; wrote != 5 {
		t.Errorf("%d records written, not 5", wrote)
	}
	// Again: nothing new. Four more are four words of the same meaning.
	after := last(t, n)
	decide(t, o, s, stop(noon, sid, "Arrêt !"))
	if wrote := last(t, n) - after; wrote != 0 {
		t.Errorf("%d records written by what is known", wrote)
	}
	for i := range 4 {
		decide(t, o, s, stop(noon.Add(time.Duration(i+1)*time.Second), sid[:33]+string(rune('2'+i)), "stop"))
	}
	again, _ := get[contracts.OptOut](t, s, contracts.KeyOptOut(digits))
	if !again.OptedOutAt.Equal(noon) || again.Keyword != "ARRET" || len(again.History) != 5 {
		t.Errorf("after four more: %+v", again)
	}
	valid(t, n)
}

func valid(t *testing.T, n *natstest.Server) {
	t.Helper()
	kv, err := n.JetStream("operator").KeyValue(context.Background(), contracts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		e, err := kv.Get(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(k, "lead.") {
			continue // these tests cut leads short
		}
		contractstest.Record(t, k, e.Value())
	}
}

func TestStopOfAStranger(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	decide(t, newOptouts(t), s, stop(noon, sid, "STOP"))
	if o, ok := get[contracts.OptOut](t, s, contracts.KeyOptOut(digits)); !ok || o.Keyword != "STOP" {
		t.Errorf("opt-out: %+v", o)
	}
	if c, ok := get[contracts.Contact](t, s, contracts.KeyContact(digits)); !ok || c.OptedOutAt.IsZero() {
		t.Errorf("contact: %+v", c)
	}
	valid(t, n)
}

// What Twilio understood counts, whatever we read.
func TestTwiliosOwnKeyword(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	decide(t, newOptouts(t), s, message(contracts.SubjectOptOut(digits), noon, map[string]string{"MessageSid": sid, "Body": "plus rien svp", "OptOutType": "STOP"}))
	if o, _ := get[contracts.OptOut](t, s, contracts.KeyOptOut(digits)); o.Keyword != "STOP" {
		t.Errorf("keyword %q", o.Keyword)
	}
}

func TestStartIsForAPerson(t *testing.T) {
	t.Parallel()
	for _, fields := range []map[string]string{
		{"MessageSid": sid, "Body": "start"}, {"MessageSid": sid, "Body": "oui", "OptOutType": "START"},
	} {
		s, n := newStore(t)
		o := newOptouts(t)
		decide(t, o, s, stop(noon, text, "STOP"))
		start := message(contracts.SubjectInbound(digits), noon.Add(time.Hour), fields)
		decide(t, o, s, start)
		before := last(t, n)
		decide(t, o, s, start)
		if wrote := last(t, n) - before; wrote != 0 {
			t.Errorf("%d records written by a replay", wrote)
		}
		i := incidents(t, n)
		if len(i) != 1 || i[0].Severity != contracts.SeverityInfo || !i[0].At.Equal(noon.Add(time.Hour)) || i[0].Action != "consumers opt-in "+phone {
			t.Errorf("incidents: %+v", i)
		}
		if c, _ := get[contracts.Contact](t, s, contracts.KeyContact(digits)); c.OptedOutAt.IsZero() {
			t.Error("opted in")
		}
		valid(t, n)

		// What the action does: an older STOP changes nothing any more, a new one does, and
		// the incident is closed.
		if err := s.Update(t.Context(), func(tx *state.Tx) error { return consent.OptIn(tx, phone, noon.Add(90*time.Minute), time.Time{}) }); err != nil {
			t.Fatal(err)
		}
		if i := incidents(t, n); i[0].ResolvedAt.IsZero() {
			t.Error("it was decided, and the incident is open")
		}
		before = last(t, n)
		decide(t, o, s, stop(noon, text, "STOP"))
		if wrote := last(t, n) - before; wrote != 0 {
			t.Error("the old STOP counts again")
		}
		decide(t, o, s, stop(noon.Add(2*time.Hour), sid, "STOP"))
		if c, _ := get[contracts.Contact](t, s, contracts.KeyContact(digits)); !c.OptedOutAt.Equal(noon.Add(2 * time.Hour)) {
			t.Errorf("the new STOP does not count: %+v", c)
		}
	}
}

// incidents are those of the bucket.
func incidents(t *testing.T, n *natstest.Server) (all []contracts.Incident) {
	t.Helper()
	kv, err := n.JetStream("operator").KeyValue(t.Context(), contracts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.ListKeysFiltered(t.Context(), "incident.>")
	if err != nil {
		t.Fatal(err)
	}
	for key := range keys.Keys() {
		e, err := kv.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		var i contracts.Incident
		if err := json.Unmarshal(e.Value(), &i); err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	return all
}

func TestWhatIsNothing(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	o := newOptouts(t)
	before := last(t, n)
	decide(t, o, s,
		message(contracts.SubjectInbound(digits), noon, map[string]string{"MessageSid": sid, "Body": "Merci, à demain"}),
		message(contracts.SubjectInbound("38998"), noon, map[string]string{"MessageSid": sid, "Body": "Votre code"}),
		message("webhooks.twilio.other", noon, nil),
		status(noon, "welcome.404", "delivered", ""), // a text that we do not know
		status(noon, "", "delivered", ""),
		status(noon, "lead.1", "delivered", ""),
		status(noon, "welcome.*", "delivered", ""),
		status(noon, "welcome.", "delivered", ""),
		status(noon, "welcome.a.>", "delivered", ""),
	)
	if wrote := last(t, n) - before; wrote != 0 {
		t.Errorf("%d records written", wrote)
	}
}

func TestWhatCannotBeProcessed(t *testing.T) {
	t.Parallel()
	o := newOptouts(t)
	for name, m := range map[string]contracts.Message{
		"not JSON":             {Subject: contracts.SubjectOptOut(digits), Data: []byte("STOP")},
		"not texts":            {Subject: contracts.SubjectOptOut(digits), Data: []byte(`{"Body":1}`)},
		"STOP of a short code": message(contracts.SubjectOptOut("38998"), noon, map[string]string{"Body": "STOP"}),
		"STOP of a name":       message(contracts.SubjectOptOut("MAIRIE"), noon, map[string]string{"Body": "STOP"}),
	} {
		if _, err := o.Prepare(context.Background(), m); err == nil || outcome.Of(err).Kind != outcome.KindPermanent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func welcome() contracts.SMS {
	return contracts.SMS{Kind: contracts.SMSWelcome, To: phone, Body: "Bonjour", Status: contracts.SMSSending, Claim: "x", Attempts: 1,
		QueuedAt: noon, ClaimedAt: noon, LeaseUntil: noon.Add(time.Minute), Cause: "1", LeadID: "1"}
}

func lead() contracts.Lead {
	return contracts.Lead{ID: "1", CreatedAt: noon, Phone: phone, Status: contracts.LeadNew}
}

// A status tells of a text even before its sender has recorded the answer.
func TestStatusOverridesTheLease(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	put(t, s, "lead.1", lead())
	put(t, s, "sms.welcome.1", welcome())
	decide(t, newOptouts(t), s, status(noon.Add(time.Second), "welcome.1", "undelivered", "30005"))
	got, _ := get[contracts.SMS](t, s, "sms.welcome.1")
	if got.Status != contracts.SMSUndelivered || got.Error != "30005" || got.SID != text || got.Claim != "" || !got.LeaseUntil.IsZero() || !got.SentAt.Equal(noon.Add(time.Second)) {
		t.Errorf("%+v", got)
	}
	if l, _ := get[contracts.Lead](t, s, "lead.1"); l.Status != contracts.LeadNew {
		t.Errorf("contacted by a text that did not arrive: %+v", l)
	}
	// Another text's status under the same id is not this one's.
	other := message(contracts.SubjectStatus(sid), noon, map[string]string{"MessageSid": sid, "MessageStatus": "delivered", "sms": "welcome.1"})
	decide(t, newOptouts(t), s, other)
	if again, _ := get[contracts.SMS](t, s, "sms.welcome.1"); again != got {
		t.Errorf("%+v", again)
	}
}

// Statuses come in any order, some twice; the records are the same.
func TestStatusesInAnyOrder(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	o := newOptouts(t)
	for name, c := range map[string]struct {
		words [][2]string
		want  contracts.SMSStatus
	}{
		"delivered":    {[][2]string{{"queued", ""}, {"sent", ""}, {"delivered", ""}}, contracts.SMSDelivered},
		"undelivered":  {[][2]string{{"sent", ""}, {"undelivered", "30003"}}, contracts.SMSUndelivered},
		"both":         {[][2]string{{"sent", ""}, {"undelivered", "30003"}, {"delivered", ""}}, contracts.SMSDelivered},
		"unsubscribed": {[][2]string{{"queued", ""}, {"sent", ""}, {"failed", "21610"}}, contracts.SMSFailed},
		"new word":     {[][2]string{{"sent", ""}, {"teleported", ""}}, contracts.SMSSent},
	} {
		var first string
		rapid.Check(t, func(rt *rapid.T) {
			put(rt, s, "lead.1", lead())
			put(rt, s, "sms.welcome.1", welcome())
			put(rt, s, contracts.KeyContact(digits), contracts.Contact{Phone: phone, Leads: []string{"1"}, Customers: []string{}})
			put(rt, s, contracts.KeyOptOut(digits), contracts.OptOut{Phone: phone, OptedOutAt: noon.Add(time.Hour), Source: contracts.OptOutBySMS})
			var msgs []contracts.Message
			for i, w := range c.words {
				m := status(noon.Add(time.Duration(i)*time.Second), "welcome.1", w[0], w[1])
				msgs = append(msgs, m)
				if rapid.Bool().Draw(rt, "twice") {
					msgs = append(msgs, m)
				}
			}
			for _, m := range rapid.Permutation(msgs).Draw(rt, "order") {
				decide(rt, o, s, m)
			}
			sms, _ := get[contracts.SMS](rt, s, "sms.welcome.1")
			l, _ := get[contracts.Lead](rt, s, "lead.1")
			contact, _ := get[contracts.Contact](rt, s, contracts.KeyContact(digits))
			optout, _ := get[contracts.OptOut](rt, s, contracts.KeyOptOut(digits))
			if sms.Status != c.want {
				rt.Fatalf("%s: %s", name, sms.Status)
			}
			all, err := json.Marshal([]any{sms, l, contact, optout})
			if err != nil {
				rt.Fatal(err)
			}
			if first == "" {
				first = string(all)
			}
			if diff := cmp.Diff(first, string(all)); diff != "" {
				rt.Fatalf("%s: the order shows (-first +now):\n%s", name, diff)
			}
		})
	}
}

// A 21610 that comes by callback only is our opt-out too; on the confirmation it
// confirms.
func TestUnsubscribedByCallback(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	o := newOptouts(t)
	put(t, s, "lead.1", lead())
	put(t, s, "sms.welcome.1", welcome())
	put(t, s, contracts.KeyContact(digits), contracts.Contact{Phone: phone, Leads: []string{"1"}, Customers: []string{}})
	decide(t, o, s, status(noon.Add(time.Second), "welcome.1", "failed", "21610"))
	optout, _ := get[contracts.OptOut](t, s, contracts.KeyOptOut(digits))
	if optout.Source != contracts.OptOutByProvider || !optout.OptedOutAt.Equal(noon.Add(time.Second)) {
		t.Errorf("%+v", optout)
	}
	if l, _ := get[contracts.Lead](t, s, "lead.1"); l.Status != contracts.LeadOptedOut {
		t.Errorf("lead: %+v", l)
	}
	if _, queued := get[contracts.SMS](t, s, "sms.optout_confirmation."+digits); queued {
		t.Error("a confirmation is queued to a number that refuses all")
	}
	decide(t, o, s, stop(noon.Add(2*time.Second), sid, "STOP"))
	decide(t, o, s, status(noon.Add(3*time.Second), "optout_confirmation."+digits, "failed", "21610"))
	if optout, _ := get[contracts.OptOut](t, s, contracts.KeyOptOut(digits)); !optout.ConfirmedAt.Equal(noon.Add(3 * time.Second)) {
		t.Errorf("%+v", optout)
	}
	valid(t, n)
}

// STOPs in any order give the same opt-out: the earliest.
func TestStopsInAnyOrder(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	o := newOptouts(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		number := "336" + time.Unix(int64(run), 0).UTC().Format("150405") + "00"
		var msgs []contracts.Message
		for i := range 4 {
			at := noon.Add(time.Duration(i/2) * time.Second) // two pairs of one time
			m := message(contracts.SubjectOptOut(number), at, map[string]string{"MessageSid": sid[:33] + string(rune('1'+i)), "Body": "STOP"})
			msgs = append(msgs, m)
		}
		for _, m := range rapid.Permutation(msgs).Draw(rt, "order") {
			decide(rt, o, s, m)
		}
		got, _ := get[contracts.OptOut](rt, s, contracts.KeyOptOut(number))
		if want := sid[:33] + "1"; got.MessageSID != want || !got.OptedOutAt.Equal(noon) {
			rt.Fatalf("%+v", got)
		}
	})
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"{{.Name}}", "{{", "{{/* nothing */}}", strings.Repeat("x", 1601)} {
		if _, err := optouts.ParseText(bad); err == nil || !strings.Contains(err.Error(), "SMS_OPTOUT_TEXT") {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}
