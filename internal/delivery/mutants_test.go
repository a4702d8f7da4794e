package delivery_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/internal/delivery"
	"leadpipe/internal/incident"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// What follows are rules that could be broken without any other test's noticing, as
// `make mutants` found.

// A bench is a bucket in which texts get their news.
type bench struct {
	*testing.T
	store *state.Store
}

var morning = time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)

func newBench(t *testing.T) bench {
	t.Parallel()
	return bench{t, state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)}
}

func (b bench) put(key string, record any) {
	b.Helper()
	update(b.T, b.store, func(tx *state.Tx) error { return tx.Put(key, record) })
}

// news is what Twilio says of a text that was sent in the morning.
func (b bench) news(key string, sms contracts.SMS, n delivery.News) {
	b.Helper()
	sms.Status, sms.SID, sms.SentAt = contracts.SMSSent, "SM1", morning
	if sms.To == "" {
		sms.To = "+33639980102"
	}
	n.SID = "SM1"
	b.put(key, sms)
	update(b.T, b.store, func(tx *state.Tx) error { return delivery.Record(tx, key, n) })
}

func (b bench) incident(id string) (i contracts.Incident, ok bool) {
	b.Helper()
	ok, err := b.store.Get(b.Context(), contracts.KeyIncident(id), &i)
	if err != nil {
		b.Fatal(err)
	}
	i.Seen = nil // who was counted
	return i, ok
}

func (b bench) wantIncident(want contracts.Incident) {
	b.Helper()
	got, _ := b.incident(want.ID)
	if diff := cmp.Diff(want, got); diff != "" {
		b.Errorf("%s (-want +got):\n%s", want.ID, diff)
	}
}

// Of a text that is on its way, whatever Twilio calls that, the record says sent, and no
// incident says that it was lost.
// https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
func TestMutantOnItsWay(t *testing.T) {
	b := newBench(t)
	for _, word := range []string{"accepted", "scheduled", "queued", "sending", "sent"} {
		key := contracts.KeySMS(contracts.SMSPaymentFailed, word)
		b.put(key, contracts.SMS{Kind: contracts.SMSPaymentFailed, To: "+33639980102", Status: contracts.SMSSending})
		update(t, b.store, func(tx *state.Tx) error {
			return delivery.Record(tx, key, delivery.News{SID: "SM" + word, Status: word, At: morning})
		})
		var sms contracts.SMS
		if read(t, b.store, key, &sms); sms.Status != contracts.SMSSent || !sms.SentAt.Equal(morning) {
			t.Errorf("%s: %s, %v", word, sms.Status, sms.SentAt)
		}
	}
	if i, ok := b.incident("sms-lost-0-2026-11-02"); ok {
		t.Errorf("%+v", i)
	}
}

// Where too many incidents are open, those of lost texts join one of their own kind. What
// one of them says is in TestWhatAnIncidentSaysOfLostTexts.
func TestMutantManyLostTexts(t *testing.T) {
	b := newBench(t)
	update(t, b.store, func(tx *state.Tx) error {
		for n := range 60 {
			if err := incident.Raise(tx, incident.Report{ID: "other-" + strconv.Itoa(n), Consumer: "leads", Reason: outcome.Auth, Severity: contracts.SeverityError, At: morning, Text: "x"}); err != nil {
				return err
			}
		}
		return nil
	})
	b.news(contracts.KeySMS(contracts.SMSPaymentFailed, "many"), contracts.SMS{Kind: contracts.SMSPaymentFailed}, delivery.News{Status: "failed", Code: 30009, At: morning})
	if _, ok := b.incident("sms-many-report-refused"); !ok {
		t.Error("the one of many is not told under its reason")
	}
	update(t, b.store, func(tx *state.Tx) error {
		return delivery.Expired(tx, contracts.SMS{Kind: contracts.SMSWelcome, ExpiresAt: morning}, contracts.Message{})
	})
	if _, ok := b.incident("sms-many-report-timeout"); !ok {
		t.Error("the one of many that expired is not told under its reason")
	}
}

// The same of texts that became too old to be sent: one incident on the day on which
// they did, with the first of the records.
func TestMutantWhatAnExpiredTextSays(t *testing.T) {
	b := newBench(t)
	want := contracts.Incident{ID: "sms-lost-expired-2026-11-02", At: morning, LastAt: morning, Count: 1, Severity: contracts.SeverityWarning, Consumer: "sms",
		Stream: contracts.StreamCRM, Subject: "$KV.crm.sms.welcome.77", Sequence: 42,
		Reason: "texts became too old before they could be sent (SMS_MAX_AGE), say over a weekend of quiet hours or an outage of Twilio",
		Action: "nats kv ls crm 'sms.welcome.>'"}
	for range 2 { // a replay counts nothing
		update(t, b.store, func(tx *state.Tx) error {
			return delivery.Expired(tx, contracts.SMS{Kind: contracts.SMSWelcome, ExpiresAt: morning},
				contracts.Message{Stream: contracts.StreamCRM, Subject: "$KV.crm.sms.welcome.77", Sequence: 42, Data: []byte("a text that is nobody's business")})
		})
		b.wantIncident(want)
	}
	// A text that arrives the next day closes it, and nothing else.
	others := []string{"sms-2026-11-01", "another-2026-11-01", "sms-lost-"}
	update(t, b.store, func(tx *state.Tx) error {
		for _, id := range others {
			if err := incident.Raise(tx, incident.Report{ID: id, Consumer: "sms", Reason: outcome.Refused, Severity: contracts.SeverityWarning, At: morning, Text: "x"}); err != nil {
				return err
			}
		}
		return nil
	})
	b.news(contracts.KeySMS(contracts.SMSPaymentFailed, "in_1.1"), contracts.SMS{Kind: contracts.SMSPaymentFailed}, delivery.News{Status: "delivered", At: morning.AddDate(0, 0, 1)})
	want.ResolvedAt = morning.AddDate(0, 0, 1)
	b.wantIncident(want)
	for _, id := range others {
		if i, ok := b.incident(id); !ok || !i.ResolvedAt.IsZero() {
			t.Errorf("%s: %+v", id, i)
		}
	}
}

// Whom another text reached is contacted, and stays so, since when it did, whatever
// becomes of this one. The same is true of a confirmation.
func TestMutantAnotherTextArrived(t *testing.T) {
	b := newBench(t)
	id, lead := "77", contracts.KeyLead("77")
	welcome := contracts.SMS{Kind: contracts.SMSWelcome, LeadID: id}
	out := contracts.KeyOptOut("33639980102")
	bye := contracts.SMS{Kind: contracts.SMSOptOutConfirmation}
	for _, status := range []string{"undelivered", "delivered"} {
		for other, want := range map[time.Duration]time.Duration{-time.Hour: -time.Hour, time.Hour: 0} {
			if status == "undelivered" {
				want = other
			}
			b.put(lead, contracts.Lead{ID: id, Phone: "+33639980102", ContactedAt: morning.Add(other), Status: contracts.LeadContacted})
			b.news(contracts.KeySMS(contracts.SMSWelcome, id), welcome, delivery.News{Status: status, At: morning.Add(time.Minute)})
			var l contracts.Lead
			if read(t, b.store, lead, &l); !l.ContactedAt.Equal(morning.Add(want)) || l.Status != contracts.LeadContacted {
				t.Errorf("contacted %v beside this text, which was %s: %s, %v", other, status, l.Status, l.ContactedAt.Sub(morning))
			}
			b.put(out, contracts.OptOut{Phone: "+33639980102", OptedOutAt: morning, ConfirmedAt: morning.Add(other)})
			b.news(contracts.KeySMS(contracts.SMSOptOutConfirmation, "33639980102"), bye, delivery.News{Status: status, At: morning.Add(time.Minute)})
			var o contracts.OptOut
			if read(t, b.store, out, &o); !o.ConfirmedAt.Equal(morning.Add(other)) {
				t.Errorf("confirmed %v beside this text, which was %s: %v", other, status, o.ConfirmedAt.Sub(morning))
			}
		}
	}
}

// Confirm tells of a confirmation that the provider made itself: the first time counts,
// and a number that said nothing has nothing to be confirmed.
func TestMutantConfirm(t *testing.T) {
	b := newBench(t)
	key := contracts.KeyOptOut("33639980102")
	b.put(key, contracts.OptOut{Phone: "+33639980102", OptedOutAt: morning})
	for _, at := range []time.Duration{time.Minute, time.Hour, time.Second} {
		update(t, b.store, func(tx *state.Tx) error { return delivery.Confirm(tx, "33639980102", morning.Add(at)) })
		var o contracts.OptOut
		if read(t, b.store, key, &o); !o.ConfirmedAt.Equal(morning.Add(time.Minute)) {
			t.Errorf("%v: %v", at, o.ConfirmedAt)
		}
	}
	update(t, b.store, func(tx *state.Tx) error { return delivery.Confirm(tx, "33639980199", morning) })
	if found, _ := b.store.Get(t.Context(), contracts.KeyOptOut("33639980199"), &contracts.OptOut{}); found {
		t.Error("an opt-out of nobody")
	}
}

// Twilio refuses to text a number that sent STOP, and answered it itself: so a welcome
// makes an opt-out of it, and the confirmation need not be sent.
// https://www.twilio.com/docs/api/errors/21610
func TestMutantRefusedSinceItOptedOut(t *testing.T) {
	b := newBench(t)
	b.put(contracts.KeyLead("77"), contracts.Lead{ID: "77", Phone: "+33639980102", Status: contracts.LeadNew})
	later := morning.Add(time.Minute)
	b.news(contracts.KeySMS(contracts.SMSWelcome, "77"), contracts.SMS{Kind: contracts.SMSWelcome, LeadID: "77"},
		delivery.News{Status: "failed", Code: delivery.Unsubscribed, At: later})
	key := contracts.KeyOptOut("33639980102")
	var o contracts.OptOut
	read(t, b.store, key, &o)
	if diff := cmp.Diff([]contracts.Word{{At: later, Kind: contracts.WordOptOut, Source: contracts.OptOutByProvider}}, o.History); diff != "" || !o.ProviderBlockedAt.Equal(later) {
		t.Errorf("%s\n%+v", diff, o)
	}
	b.news(contracts.KeySMS(contracts.SMSOptOutConfirmation, "33639980102"), contracts.SMS{Kind: contracts.SMSOptOutConfirmation},
		delivery.News{Status: "failed", Code: delivery.Unsubscribed, At: later})
	if read(t, b.store, key, &o); !o.ConfirmedAt.Equal(morning) {
		t.Errorf("confirmed at %v", o.ConfirmedAt)
	}
}
