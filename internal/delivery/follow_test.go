package delivery_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"leadpipe/contracts"
	"leadpipe/internal/delivery"
	"leadpipe/internal/incident"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// A person who texted us has two welcomes, of two forms. He was contacted when the first of
// them was taken, until that one turns out to be lost.
func TestWhenALeadWasContacted(t *testing.T) {
	t.Parallel()
	store := state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	const to = "+33639980110"
	news := func(cause, status string, code int, when time.Time) {
		t.Helper()
		update(t, store, func(tx *state.Tx) error {
			return delivery.Record(tx, contracts.KeySMS(contracts.SMSWelcome, cause), delivery.News{SID: "SM" + cause, Status: status, Code: code, At: when})
		})
	}
	contacted := func(when string, want time.Time, status contracts.LeadStatus) {
		t.Helper()
		var lead contracts.Lead
		read(t, store, contracts.KeyLead("1"), &lead)
		if !lead.ContactedAt.Equal(want) || lead.Status != status {
			t.Errorf("%s: the lead is %s, contacted at %v; want %s, %v", when, lead.Status, lead.ContactedAt, status, want)
		}
	}
	update(t, store, func(tx *state.Tx) error {
		for _, cause := range []string{"a", "b", "c"} {
			text := contracts.SMS{Kind: contracts.SMSWelcome, To: to, Status: contracts.SMSSending, Cause: cause, LeadID: "1"}
			if err := tx.Put(contracts.KeySMS(contracts.SMSWelcome, cause), text); err != nil {
				return err
			}
		}
		return tx.Put(contracts.KeyLead("1"), contracts.Lead{ID: "1", Phone: to, Status: contracts.LeadNew})
	})
	news("b", "queued", 0, at.Add(time.Hour))
	contacted("the first text is taken", at.Add(time.Hour), contracts.LeadContacted)
	news("c", "queued", 0, at.Add(2*time.Hour))
	contacted("a later text is taken", at.Add(time.Hour), contracts.LeadContacted)
	news("c", "undelivered", 30003, at.Add(2*time.Hour))
	contacted("a later text is lost", at.Add(time.Hour), contracts.LeadContacted)
	news("a", "queued", 0, at)
	contacted("it becomes known that one was taken before", at, contracts.LeadContacted)
	news("b", "delivered", 0, at.Add(time.Hour))
	contacted("the other is delivered", at, contracts.LeadContacted)
	news("a", "undelivered", 30003, at.Add(time.Minute))
	contacted("the text that contacted is lost", time.Time{}, contracts.LeadNew)
}

// A confirmation counts from the first that was not lost; Twilio's refusal of it for an
// opt-out that Twilio knows of is one, since Twilio has told the number itself.
// https://www.twilio.com/docs/api/errors/21610
func TestWhenAnOptOutWasConfirmed(t *testing.T) {
	t.Parallel()
	store := state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	const digits = "33639980111"
	optOut := func() (o contracts.OptOut) {
		t.Helper()
		read(t, store, contracts.KeyOptOut(digits), &o)
		return o
	}
	confirm := func(when time.Time) {
		t.Helper()
		update(t, store, func(tx *state.Tx) error { return delivery.Confirm(tx, digits, when) })
	}
	key := contracts.KeySMS(contracts.SMSOptOutConfirmation, digits)
	news := func(status string, code int, when time.Time) {
		t.Helper()
		update(t, store, func(tx *state.Tx) error {
			return delivery.Record(tx, key, delivery.News{SID: "SM1", Status: status, Code: code, At: when})
		})
	}
	put := func(confirmed time.Time) {
		t.Helper()
		update(t, store, func(tx *state.Tx) error {
			o := contracts.OptOut{Phone: "+" + digits, OptedOutAt: at.Add(-time.Hour), ConfirmedAt: confirmed}
			if err := tx.Put(contracts.KeyOptOut(digits), o); err != nil {
				return err
			}
			return tx.Put(key, contracts.SMS{Kind: contracts.SMSOptOutConfirmation, To: "+" + digits, Status: contracts.SMSSending, Cause: digits})
		})
	}
	put(time.Time{})
	confirm(at)
	if got := optOut().ConfirmedAt; !got.Equal(at) {
		t.Errorf("confirmed at %v", got)
	}
	for _, again := range []time.Time{at.Add(time.Hour), at.Add(-time.Minute), {}} { // the first time counts, and only a text can take it back
		confirm(again)
		if got := optOut().ConfirmedAt; !got.Equal(at) {
			t.Errorf("confirmed again at %v: %v", again, got)
		}
	}
	news("queued", 0, at.Add(time.Minute))
	news("undelivered", 30003, at.Add(2*time.Minute)) // what was noted was another confirmation
	if got := optOut().ConfirmedAt; !got.Equal(at) {
		t.Errorf("the loss of another text took the confirmation back: %v", got)
	}

	put(time.Time{})
	news("sent", 0, at.Add(time.Minute))
	news("queued", 0, at)
	if got := optOut().ConfirmedAt; !got.Equal(at) {
		t.Errorf("the text was taken at %v, and confirmed at %v", at, got)
	}
	news("undelivered", 30003, at.Add(time.Hour))
	if got := optOut().ConfirmedAt; !got.IsZero() {
		t.Errorf("confirmed by a text that was lost: %v", got)
	}

	put(time.Time{})
	news("failed", delivery.Unsubscribed, at)
	if o := optOut(); !o.ConfirmedAt.Equal(at) || !o.OptedOutAt.Equal(at.Add(-time.Hour)) {
		t.Errorf("Twilio knows of the opt-out: %+v", o)
	}
}

// A welcome to a number that opted out at Twilio is an opt-out of the number, whoever else
// it belongs to.
// https://www.twilio.com/docs/api/errors/21610
func TestAWelcomeThatTwilioRefusesIsAnOptOut(t *testing.T) {
	t.Parallel()
	store := state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	const to = "+33639980112"
	key := contracts.KeySMS(contracts.SMSWelcome, "1")
	update(t, store, func(tx *state.Tx) error {
		if err := tx.Put(contracts.KeyLead("1"), contracts.Lead{ID: "1", Phone: to, Status: contracts.LeadNew}); err != nil {
			return err
		}
		if err := tx.Put(contracts.KeyContact(to[1:]), contracts.Contact{Phone: to, Leads: []string{"1"}, Customers: []string{}}); err != nil {
			return err
		}
		return tx.Put(key, contracts.SMS{Kind: contracts.SMSWelcome, To: to, Status: contracts.SMSSending, Cause: "1", LeadID: "1"})
	})
	update(t, store, func(tx *state.Tx) error {
		return delivery.Record(tx, key, delivery.News{SID: "SM1", Status: "failed", Code: delivery.Unsubscribed, At: at})
	})
	var o contracts.OptOut
	read(t, store, contracts.KeyOptOut(to[1:]), &o)
	want := contracts.OptOut{Phone: to, OptedOutAt: at, ProviderBlockedAt: at, Source: contracts.OptOutByProvider,
		History: []contracts.Word{{At: at, Kind: contracts.WordOptOut, Source: contracts.OptOutByProvider}}}
	if diff := cmp.Diff(want, o, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the opt-out (-want +got):\n%s", diff)
	}
	var lead contracts.Lead
	if read(t, store, contracts.KeyLead("1"), &lead); lead.Status != contracts.LeadOptedOut || !lead.ContactedAt.IsZero() {
		t.Errorf("%+v", lead)
	}
}

// What a person reads of texts that did not arrive. The meanings are those of Twilio's pages.
// https://www.twilio.com/docs/api/errors/30003 and the like
func TestWhatAnIncidentSaysOfLostTexts(t *testing.T) {
	t.Parallel()
	store := state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	for code, says := range map[int]string{
		0:     "no error code",
		30002: "Twilio's error 30002 (account suspended), https://www.twilio.com/docs/api/errors/30002",
		30003: "Twilio's error 30003 (handset unreachable), https://www.twilio.com/docs/api/errors/30003",
		30004: "Twilio's error 30004 (blocked by the recipient), https://www.twilio.com/docs/api/errors/30004",
		30005: "Twilio's error 30005 (unknown number), https://www.twilio.com/docs/api/errors/30005",
		30006: "Twilio's error 30006 (landline, or carrier out of reach), https://www.twilio.com/docs/api/errors/30006",
		30007: "Twilio's error 30007 (filtered by the carrier), https://www.twilio.com/docs/api/errors/30007",
		30008: "Twilio's error 30008 (unknown error), https://www.twilio.com/docs/api/errors/30008",
		30034: "Twilio's error 30034 (sender not registered), https://www.twilio.com/docs/api/errors/30034",
		30999: "Twilio's error 30999, https://www.twilio.com/docs/api/errors/30999",
	} {
		cause := contracts.KeySMS(contracts.SMSPaymentFailed, fmt.Sprintf("in_1.%d", code))
		webhook := contracts.Message{Stream: contracts.StreamWebhooks, Subject: "webhooks.twilio.status.SM1", Sequence: uint64(code) + 7, Time: at}
		update(t, store, func(tx *state.Tx) error {
			return tx.Put(cause, contracts.SMS{Kind: contracts.SMSPaymentFailed, To: "+33639980113", Status: contracts.SMSSending})
		})
		update(t, store, func(tx *state.Tx) error {
			return delivery.Record(tx, cause, delivery.News{SID: "SM1", Status: "sent", At: at})
		})
		update(t, store, func(tx *state.Tx) error {
			return delivery.Record(tx, cause, delivery.News{SID: "SM1", Status: "undelivered", Code: code, At: at, Message: webhook})
		})
		id := fmt.Sprintf("sms-lost-%d-2026-11-02", code)
		want := contracts.Incident{ID: id, At: at, LastAt: at, Count: 1, Severity: contracts.SeverityWarning, Consumer: contracts.SMSSender,
			Stream: contracts.StreamWebhooks, Sequence: webhook.Sequence, Subject: webhook.Subject,
			Reason: "texts did not arrive: " + says + "; the records of these texts are undelivered or failed, and their leads are not contacted",
			Action: "nats kv ls crm 'sms.payment_failed.>'"}
		same(t, store, want, outcome.Refused)
	}

	// Texts that were never sent.
	update(t, store, func(tx *state.Tx) error {
		return delivery.Expired(tx, contracts.SMS{Kind: contracts.SMSWelcome, ExpiresAt: at},
			contracts.Message{Stream: contracts.StreamCRM, Subject: "$KV.crm.sms.welcome.1", Sequence: 9, Data: []byte("{}"), ID: "x"})
	})
	same(t, store, contracts.Incident{ID: "sms-lost-expired-2026-11-02", At: at, LastAt: at, Count: 1, Severity: contracts.SeverityWarning,
		Consumer: contracts.SMSSender, Stream: contracts.StreamCRM, Sequence: 9, Subject: "$KV.crm.sms.welcome.1",
		Reason: "texts became too old before they could be sent (SMS_MAX_AGE), say over a weekend of quiet hours or an outage of Twilio",
		Action: "nats kv ls crm 'sms.welcome.>'"}, outcome.Timeout)
}

// Only incidents of lost texts are closed by a text that arrives.
func TestATextThatArrivesClosesNothingElse(t *testing.T) {
	t.Parallel()
	store := state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	others := []string{"sheets-place-2026-11-01", "graph-1", "sms"}
	update(t, store, func(tx *state.Tx) error {
		for _, id := range others {
			if err := incident.Raise(tx, incident.Report{ID: id, Consumer: "leads", Reason: outcome.Refused, Severity: contracts.SeverityWarning, At: at, Text: "x", Action: "y"}); err != nil {
				return err
			}
		}
		return tx.Put("sms.payment_failed.in_1.1", contracts.SMS{Kind: contracts.SMSPaymentFailed, To: "+33639980114", Status: contracts.SMSSent, SID: "SM1", SentAt: at})
	})
	update(t, store, func(tx *state.Tx) error {
		return delivery.Record(tx, "sms.payment_failed.in_1.1", delivery.News{SID: "SM1", Status: "delivered", At: at.AddDate(0, 0, 2)})
	})
	for _, id := range others {
		var i contracts.Incident
		if read(t, store, contracts.KeyIncident(id), &i); !i.ResolvedAt.IsZero() {
			t.Errorf("%s is closed", id)
		}
	}
}

// same compares an open incident, and under which reason others would join it.
func same(t *testing.T, store *state.Store, want contracts.Incident, reason outcome.Reason) {
	t.Helper()
	var got contracts.Incident
	read(t, store, contracts.KeyIncident(want.ID), &got)
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(contracts.Incident{}, "Seen", "Members", "First")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", want.ID, diff)
	}
	var index contracts.IncidentIndex
	read(t, store, contracts.KeyIncidentIndex, &index)
	for _, x := range index.Open {
		if x.ID == want.ID && x.Reason == string(reason) && x.Consumer == want.Consumer {
			return
		}
	}
	t.Errorf("%s is not listed as %s of %s: %+v", want.ID, reason, want.Consumer, index.Open)
}
