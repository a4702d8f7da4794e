package delivery_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/internal/delivery"
	"leadpipe/internal/natstest"
	"leadpipe/internal/state"
)

// What a text's record says after each piece of news. The statuses are Twilio's.
// https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
func TestWhatNewsMakesOfAText(t *testing.T) {
	t.Parallel()
	store := state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	later := at.Add(time.Minute)
	key := contracts.KeySMS(contracts.SMSPaymentFailed, "in_1.1")
	for _, tt := range []struct {
		name string
		was  contracts.SMS
		news delivery.News
		want contracts.SMS
	}{
		{"taken", contracts.SMS{Status: contracts.SMSSending, Claim: "c", LeaseUntil: at, NotBefore: at}, delivery.News{SID: "SM1", Status: "queued", At: later},
			contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: later}},
		{"accepted", contracts.SMS{Status: contracts.SMSSending}, delivery.News{SID: "SM1", Status: "accepted", At: later},
			contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: later}},
		{"scheduled", contracts.SMS{Status: contracts.SMSSending}, delivery.News{SID: "SM1", Status: "scheduled", At: later},
			contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: later}},
		{"on its way", contracts.SMS{Status: contracts.SMSSending}, delivery.News{SID: "SM1", Status: "sending", At: later},
			contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: later}},
		{"delivered", contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at}, delivery.News{SID: "SM1", Status: "delivered", At: later},
			contracts.SMS{Status: contracts.SMSDelivered, SID: "SM1", SentAt: at}},
		{"read", contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at}, delivery.News{SID: "SM1", Status: "read", At: later},
			contracts.SMS{Status: contracts.SMSDelivered, SID: "SM1", SentAt: at}},
		{"to some", contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at}, delivery.News{SID: "SM1", Status: "partially_delivered", At: later},
			contracts.SMS{Status: contracts.SMSDelivered, SID: "SM1", SentAt: at}},
		{"lost, with its code", contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at}, delivery.News{SID: "SM1", Status: "undelivered", Code: 30003, At: later},
			contracts.SMS{Status: contracts.SMSUndelivered, SID: "SM1", SentAt: at, Error: "30003"}},
		{"lost, without one", contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at, Error: "x"}, delivery.News{SID: "SM1", Status: "failed", At: later},
			contracts.SMS{Status: contracts.SMSFailed, SID: "SM1", SentAt: at}},
		{"canceled", contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at}, delivery.News{SID: "SM1", Status: "canceled", At: later},
			contracts.SMS{Status: contracts.SMSFailed, SID: "SM1", SentAt: at}},
		{"it never goes back", contracts.SMS{Status: contracts.SMSDelivered, SID: "SM1", SentAt: at}, delivery.News{SID: "SM1", Status: "sent", At: later},
			contracts.SMS{Status: contracts.SMSDelivered, SID: "SM1", SentAt: at}},
		{"lost before failed", contracts.SMS{Status: contracts.SMSUndelivered, SID: "SM1", SentAt: at, Error: "30003"}, delivery.News{SID: "SM1", Status: "failed", Code: 30008, At: later},
			contracts.SMS{Status: contracts.SMSUndelivered, SID: "SM1", SentAt: at, Error: "30003"}},
		{"the same again, with another code", contracts.SMS{Status: contracts.SMSUndelivered, SID: "SM1", SentAt: at, Error: "30003"},
			delivery.News{SID: "SM1", Status: "undelivered", Code: 30008, At: later},
			contracts.SMS{Status: contracts.SMSUndelivered, SID: "SM1", SentAt: at, Error: "30003"}},
		{"a word that we do not know", contracts.SMS{Status: contracts.SMSSending, Claim: "c"}, delivery.News{SID: "SM1", Status: "teleported", At: at},
			contracts.SMS{Status: contracts.SMSSending, Claim: "c"}},
		{"of another text", contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at}, delivery.News{SID: "SM2", Status: "failed", At: later},
			contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at}},
		{"we had given it up, and it exists", contracts.SMS{Status: contracts.SMSFailed, Error: "timeout"}, delivery.News{SID: "SM1", Status: "sent", At: at},
			contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: at}},
		{"it was taken earlier than we knew", contracts.SMS{Status: contracts.SMSSent, SID: "SM1", SentAt: later}, delivery.News{SID: "SM1", Status: "delivered", At: at},
			contracts.SMS{Status: contracts.SMSDelivered, SID: "SM1", SentAt: at}},
	} {
		tt.was.Kind, tt.was.To = contracts.SMSPaymentFailed, "+33639980102"
		tt.want.Kind, tt.want.To = tt.was.Kind, tt.was.To
		update(t, store, func(tx *state.Tx) error { return tx.Put(key, tt.was) })
		update(t, store, func(tx *state.Tx) error { return delivery.Record(tx, key, tt.news) })
		var got contracts.SMS
		read(t, store, key, &got)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	var x contracts.TextIndex
	if read(t, store, contracts.KeyTextIndex("SM1"), &x); x.Key != key {
		t.Errorf("SM1 is %q", x.Key)
	}
	// Of a text that is not ours nothing is stored, and an id that can't be a key is no index.
	update(t, store, func(tx *state.Tx) error {
		return delivery.Record(tx, contracts.KeySMS(contracts.SMSWelcome, "9"), delivery.News{SID: "SM9", Status: "sent", At: at})
	})
	if found, _ := store.Get(t.Context(), contracts.KeyTextIndex("SM9"), &x); found {
		t.Error("a text that does not exist is listed")
	}
	update(t, store, func(tx *state.Tx) error {
		return tx.Put(key, contracts.SMS{Kind: contracts.SMSPaymentFailed, To: "+33639980102", Status: contracts.SMSSending})
	})
	update(t, store, func(tx *state.Tx) error {
		return delivery.Record(tx, key, delivery.News{SID: "a b", Status: "sent", At: at})
	})
}

// A text that is lost is one incident of the day and the code, which the next text that
// arrives on another day closes; a number that opted out at Twilio is out here too.
// https://www.twilio.com/docs/api/errors/21610
func TestWhatFollowsFromALostText(t *testing.T) {
	t.Parallel()
	store := state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	send := func(cause, to, status string, code int, when time.Time) {
		key := contracts.KeySMS(contracts.SMSPaymentFailed, cause)
		update(t, store, func(tx *state.Tx) error {
			return tx.Put(key, contracts.SMS{Kind: contracts.SMSPaymentFailed, To: to, Status: contracts.SMSSent, SID: "SM" + cause[3:4], SentAt: when})
		})
		update(t, store, func(tx *state.Tx) error {
			return delivery.Record(tx, key, delivery.News{SID: "SM" + cause[3:4], Status: status, Code: code, At: when})
		})
	}
	incident := func(id string) (i contracts.Incident, ok bool) {
		ok, err := store.Get(t.Context(), contracts.KeyIncident(id), &i)
		if err != nil {
			t.Fatal(err)
		}
		return i, ok
	}
	send("in_1.1", "+33639980102", "undelivered", 30003, at)
	send("in_2.1", "+33639980103", "failed", 30003, at.Add(time.Hour))
	send("in_3.1", "+33639980104", "undelivered", 0, at)
	if i, ok := incident("sms-lost-30003-2026-11-02"); !ok || i.Count != 2 || !i.ResolvedAt.IsZero() {
		t.Errorf("%v %+v", ok, i)
	}
	if _, ok := incident("sms-lost-0-2026-11-02"); !ok {
		t.Error("a lost text without a code is told to nobody")
	}
	send("in_4.1", "+33639980105", "delivered", 0, at.Add(2*time.Hour)) // the same day closes nothing
	if i, _ := incident("sms-lost-30003-2026-11-02"); !i.ResolvedAt.IsZero() {
		t.Error("closed on the same day")
	}
	send("in_5.1", "+33639980106", "delivered", 0, at.AddDate(0, 0, 1))
	if i, _ := incident("sms-lost-30003-2026-11-02"); i.ResolvedAt.IsZero() {
		t.Error("texts arrive again, and the incident is open")
	}
	send("in_6.1", "+33639980107", "undelivered", delivery.Unsubscribed, at.AddDate(0, 0, 1))
	if _, ok := incident("sms-lost-21610-2026-11-03"); ok {
		t.Error("an opt-out is no lost text")
	}
	var o contracts.OptOut
	if read(t, store, contracts.KeyOptOut("33639980107"), &o); o.OptedOutAt.IsZero() || o.Source != contracts.OptOutByProvider {
		t.Errorf("%+v", o)
	}
	if found, _ := store.Get(t.Context(), contracts.KeyOptOut("33639980102"), &o); found {
		t.Error("a handset out of reach has opted out")
	}
}
