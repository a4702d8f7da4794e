package sms_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/optouts"
	"leadpipe/internal/sms"
	"leadpipe/internal/state"
)

// A form is what the test's own leads consumer makes a welcome of.
type form struct {
	N  int       `json:"n"`
	At time.Time `json:"at"`
}

// runLeads queues a welcome for each form, as package leads does.
func (r *rig) runLeads() (stop func()) {
	return r.loop(contracts.StreamWebhooks, contracts.Leads, bus.Fold(contracts.Leads, r.store, 1,
		func(_ context.Context, m contracts.Message) (f form, err error) { return f, json.Unmarshal(m.Data, &f) },
		func(tx *state.Tx, f form) error {
			lead, text := welcome(f.N)
			lead.CreatedAt, text.QueuedAt, text.ExpiresAt = f.At, f.At, f.At.Add(48*time.Hour)
			contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits(f.N)))
			if err != nil {
				return err
			}
			if _, there, err := state.Get[contracts.Lead](tx, contracts.KeyLead(lead.ID)); err != nil || there {
				return err
			}
			contact.Phone, contact.Leads, contact.Customers = lead.Phone, []string{lead.ID}, []string{}
			lead.OptedOutAt = contact.OptedOutAt
			lead.Settle()
			if err := tx.Put(contracts.KeyLead(lead.ID), lead); err != nil {
				return err
			}
			if err := tx.Put(contracts.KeyContact(digits(f.N)), contact); err != nil {
				return err
			}
			return tx.Put(contracts.KeySMS(text.Kind, text.Cause), text)
		}))
}

func (r *rig) form(n int, at time.Time) {
	r.tb.Helper()
	data, err := json.Marshal(form{n, at})
	if err != nil {
		r.tb.Fatal(err)
	}
	m := contracts.Message{Subject: contracts.SubjectFacebookLeadgen, ID: contracts.MessageIDFacebook(fmt.Sprint(n)), Data: data}
	if err := bus.NewPublisher(r.nats.JetStream("edge")).Publish(context.Background(), []contracts.Message{m}); err != nil {
		r.tb.Fatal(err)
	}
}

// drained waits until durables have nothing left.
func (r *rig) drained(durables ...[2]string) {
	r.tb.Helper()
	js := r.nats.JetStream("operator")
	for _, d := range durables {
		eventually(r.tb, 30*time.Second, d[1]+" has nothing left", func() bool {
			ok, err := bus.Settled(context.Background(), js, d[0], d[1])
			return err == nil && ok
		})
	}
}

func TestReplays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	leads, stops, texts := [2]string{contracts.StreamWebhooks, contracts.Leads}, [2]string{contracts.StreamWebhooks, contracts.Optouts}, [2]string{contracts.StreamCRM, contracts.SMSSender}
	now := time.Now().UTC().Truncate(time.Second)
	for n := range 15 { // 0 to 4 opt out after their welcome, 5 to 9 do not, 10 to 14 are old
		at := now
		if n >= 10 {
			at = now.Add(-72 * time.Hour)
		}
		r.form(n, at)
	}
	for n := 15; n < 20; n++ { // these opt out first
		r.stop(n, fmt.Sprintf("SM%032d", n))
	}
	halt := []func(){r.runLeads(), r.runOptOuts(), r.runSMS()}
	r.drained(stops)
	for n := 15; n < 20; n++ {
		r.form(n, now)
	}
	r.drained(leads, texts)
	r.statuses(20*time.Second, 0, 10, contracts.SMSSent, contracts.SMSDelivered)
	for n := range 5 {
		r.stop(n, fmt.Sprintf("SM%032d", n))
	}
	r.drained(stops, leads, texts)
	if n := len(r.twilio.Messages()); n != 20 { // ten welcomes, ten confirmations
		t.Fatalf("%d texts, not 20", n)
	}
	for _, h := range halt {
		h()
	}

	js := r.nats.JetStream("operator")
	last := func() uint64 {
		s, err := js.Stream(context.Background(), contracts.StreamCRM)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.LastSeq
	}
	before := last()
	for _, d := range [][2]string{leads, stops, texts} {
		if err := js.DeleteConsumer(context.Background(), d[0], d[1]); err != nil {
			t.Fatal(err)
		}
	}
	r.nats.Apply() // anew, from the first message on
	halt = []func(){r.runLeads(), r.runOptOuts(), r.runSMS()}
	r.drained(leads, stops, texts)
	for _, h := range halt {
		h()
	}
	if n := len(r.twilio.Calls()); n != 20 {
		t.Errorf("the replay made %d calls", n-20)
	}
	if wrote := last() - before; wrote != 0 {
		t.Errorf("the replay wrote %d records", wrote)
	}

	// The bucket is lost; the webhooks are not. An hour later everything is replayed, the
	// opt-outs last.
	for _, d := range [][2]string{leads, stops} {
		if err := js.DeleteConsumer(context.Background(), d[0], d[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := js.DeleteStream(context.Background(), contracts.StreamCRM); err != nil {
		t.Fatal(err)
	}
	r.nats.Apply()
	r.runLeads()
	r.runSMS(func(o *sms.Options) { o.Now = func() time.Time { return time.Now().Add(time.Hour) } })
	r.drained(leads)
	r.statuses(20*time.Second, 0, 10, contracts.SMSSent, contracts.SMSDelivered)
	r.statuses(20*time.Second, 10, 15, contracts.SMSExpired)
	r.statuses(20*time.Second, 15, 20, contracts.SMSQueued, contracts.SMSSending) // held
	r.runOptOuts()
	r.drained(stops, texts)
	r.statuses(20*time.Second, 15, 20, contracts.SMSSuppressed)
	if n := len(r.twilio.Messages()); n != 20 {
		t.Errorf("%d texts after the bucket was lost", n-20)
	}
	r.valid()
}

// The confirmation is exactly the default text, and a number that Twilio has blocked
// already counts as told.
func TestConfirmation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.twilio.Block(number(1))
	r.runOptOuts()
	r.runSMS()
	for n := range 2 {
		for k := range 3 {
			r.stop(n, fmt.Sprintf("SM%031d%d", n, k))
		}
		eventually(t, 30*time.Second, "the opt-out is confirmed", func() bool {
			var o contracts.OptOut
			ok, err := r.store.Get(context.Background(), contracts.KeyOptOut(digits(n)), &o)
			return err == nil && ok && !o.ConfirmedAt.IsZero()
		})
	}
	r.drained([2]string{contracts.StreamWebhooks, contracts.Optouts}, [2]string{contracts.StreamCRM, contracts.SMSSender})
	m := r.twilio.Messages()
	if len(m) != 1 || m[0].Body != "Vous êtes désabonné. Plus de SMS." || m[0].To != number(0) || m[0].Body != optouts.DefaultText {
		t.Errorf("%+v", m)
	}
	r.calls(2)
	for n := range 2 {
		if o := get[contracts.OptOut](r, contracts.KeyOptOut(digits(n))); o.Source != contracts.OptOutBySMS {
			t.Errorf("%+v", o)
		}
	}
	r.valid()
}
