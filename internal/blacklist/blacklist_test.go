package blacklist_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/blacklist"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	standin "leadpipe/internal/sandbox/twilio"
	"leadpipe/internal/state"
	"leadpipe/internal/twilio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "AC00000000000000000000000000000001"
	service = "MG00000000000000000000000000000001"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

type rig struct {
	t      *testing.T
	store  *state.Store
	twilio *standin.Server
	b      *blacklist.Blacklist
}

func newRig(t *testing.T, wrap func(http.Handler) http.Handler, change ...func(*standin.Options)) *rig {
	t.Helper()
	r := &rig{t: t, store: state.New(natstest.New(t, natstest.LazySync).JetStream("consumers"), nil)}
	o := standin.Options{AccountSID: account, AuthToken: "token"}
	for _, c := range change {
		c(&o)
	}
	var err error
	if r.twilio, err = standin.New(o); err != nil {
		t.Fatal(err)
	}
	var h http.Handler = r.twilio
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.Close(); _ = r.twilio.Close() })
	c, err := twilio.New(twilio.Options{Account: account, Token: "token", BaseURL: srv.URL, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if r.b, err = blacklist.New(blacklist.Options{Store: r.store, Twilio: c, Service: service}); err != nil {
		t.Fatal(err)
	}
	return r
}

// optout commits the nth number's opt-out and gives its change.
func (r *rig) optout(n int, change ...func(*contracts.OptOut)) contracts.Message {
	r.t.Helper()
	digits := fmt.Sprintf("3363998%04d", n)
	o := contracts.OptOut{Phone: "+" + digits, OptedOutAt: noon, Keyword: "STOP", MessageSID: "SM1", ConfirmedAt: noon, Source: contracts.OptOutBySMS}
	for _, c := range change {
		c(&o)
	}
	r.put(contracts.KeyOptOut(digits), o)
	data, err := json.Marshal(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return contracts.Message{Stream: contracts.StreamCRM, Subject: contracts.SubjectOfKey(contracts.KeyOptOut(digits)), Data: data, Sequence: uint64(n + 1)}
}

func (r *rig) put(key string, record any) {
	r.t.Helper()
	if err := r.store.Update(context.Background(), func(tx *state.Tx) error { return tx.Put(key, record) }); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) get(n int) contracts.OptOut {
	r.t.Helper()
	var o contracts.OptOut
	if ok, err := r.store.Get(context.Background(), contracts.KeyOptOut(fmt.Sprintf("3363998%04d", n)), &o); !ok || err != nil {
		r.t.Fatal(ok, err)
	}
	return o
}

func unconfirmed(o *contracts.OptOut) { o.ConfirmedAt = time.Time{} }

func TestManyGoInCallsOf25(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	var msgs []contracts.Message
	for n := range 60 {
		msgs = append(msgs, r.optout(n))
	}
	for i, err := range r.b.Handle(context.Background(), msgs) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if n := r.twilio.Count(standin.Consents); n != 3 {
		t.Errorf("%d calls", n)
	}
	ids := map[string]bool{}
	for i, c := range r.twilio.Consents() {
		ids[c.CorrelationID] = true
		if want := fmt.Sprintf("+3363998%04d", i); c.ContactID != want || c.Status != "opt-out" || c.SenderID != service || c.DateOfConsent != "2026-11-23T12:00:00Z" {
			t.Errorf("%+v", c)
		}
	}
	if len(ids) != 60 {
		t.Errorf("%d correlation ids", len(ids))
	}
	for n := range 60 {
		o := r.get(n)
		if o.ProviderBlockedAt.IsZero() || !r.twilio.Blocked(o.Phone) {
			t.Errorf("%d: %+v", n, o)
		}
		doc, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		contractstest.Record(t, contracts.KeyOptOut("1"), doc)
	}
}

// The number is told before the provider is.
func TestConfirmationComesFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	m := r.optout(1, unconfirmed)
	key := contracts.KeySMS(contracts.SMSOptOutConfirmation, "33639980001")
	for _, c := range []struct {
		status contracts.SMSStatus
		kind   outcome.Kind
	}{
		{contracts.SMSQueued, outcome.KindNotYet},
		{contracts.SMSSending, outcome.KindNotYet},
		{contracts.SMSExpired, ""}, // it never will be told
	} {
		r.put(key, contracts.SMS{Kind: contracts.SMSOptOutConfirmation, To: "+33639980001", Status: c.status, Cause: "33639980001"})
		err := r.b.Handle(context.Background(), []contracts.Message{m})[0]
		if (err == nil) != (c.kind == "") || err != nil && outcome.Of(err).Kind != c.kind {
			t.Errorf("%s: %v", c.status, err)
		}
		if told := len(r.twilio.Consents()) > 0; told != (c.kind == "") {
			t.Errorf("%s: told %t", c.status, told)
		}
	}
}

// On a cluster a replica that answers may lag: it has the opt-out and not yet the
// confirmation, which the same commit queued. Told then, Twilio would refuse that with
// 21610, and the person would hear nothing (a cluster that lost its leader did so).
// https://www.twilio.com/docs/api/errors/21610
func TestAConfirmationThatIsNotSeenYetComesFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	m := r.optout(1, unconfirmed)
	m.Time = time.Now()
	if err := r.b.Handle(context.Background(), []contracts.Message{m})[0]; outcome.Of(err).Kind != outcome.KindNotYet {
		t.Errorf("the confirmation is not seen yet: %v", err)
	}
	if n := r.twilio.Count(standin.Consents); n != 0 {
		t.Errorf("Twilio was told before the number was, in %d calls", n)
	}
	r.put(contracts.KeySMS(contracts.SMSOptOutConfirmation, "33639980001"),
		contracts.SMS{Kind: contracts.SMSOptOutConfirmation, To: "+33639980001", Status: contracts.SMSSent, Cause: "33639980001"})
	if err := r.b.Handle(context.Background(), []contracts.Message{m})[0]; err != nil {
		t.Error(err)
	}
	// One that never was, or that somebody deleted, keeps nothing from Twilio for ever, and
	// an operator's opt-out has none.
	gone := r.optout(2, unconfirmed)
	gone.Time = time.Now().Add(-2 * time.Minute)
	byHand := r.optout(3, unconfirmed, func(o *contracts.OptOut) { o.Source = contracts.OptOutByOperator })
	byHand.Time = time.Now()
	for i, err := range r.b.Handle(context.Background(), []contracts.Message{gone, byHand}) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if n := len(r.twilio.Consents()); n != 3 {
		t.Errorf("Twilio has %d opt-outs", n)
	}
}

func TestNothingToTell(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	blocked := func(o *contracts.OptOut) { o.ProviderBlockedAt = noon }
	deleted := r.optout(2)
	deleted.Data = nil
	for _, err := range r.b.Handle(context.Background(), []contracts.Message{r.optout(1, blocked), deleted}) {
		if err != nil {
			t.Error(err)
		}
	}
	if n := r.twilio.Count(standin.Consents); n != 0 {
		t.Errorf("%d calls", n)
	}
	bad := contracts.Message{Subject: contracts.SubjectOfKey("optout.1"), Data: []byte("{")}
	if err := r.b.Handle(context.Background(), []contracts.Message{bad})[0]; outcome.Of(err).Kind != outcome.KindPermanent {
		t.Error(err)
	}
}

// An operator's record without a number in it is told by its key.
func TestOperatorsOptOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	m := r.optout(7, func(o *contracts.OptOut) { *o = contracts.OptOut{Source: contracts.OptOutByOperator} })
	if err := r.b.Handle(context.Background(), []contracts.Message{m})[0]; err != nil {
		t.Fatal(err)
	}
	if c := r.twilio.Consents(); len(c) != 1 || c[0].ContactID != "+33639980007" || c[0].Source != "others" || c[0].DateOfConsent != "" {
		t.Errorf("%+v", c)
	}
}

// One number that Twilio refuses does not hold the others, and is an incident.
func TestRefusedItem(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	future := func(o *contracts.OptOut) { o.OptedOutAt = time.Now().Add(24 * time.Hour).UTC() }
	errs := r.b.Handle(context.Background(), []contracts.Message{r.optout(1), r.optout(2, future), r.optout(3)})
	if errs[0] != nil || errs[2] != nil || outcome.Of(errs[1]).Kind != outcome.KindPermanent {
		t.Errorf("%v", errs)
	}
	if r.get(1).ProviderBlockedAt.IsZero() || !r.get(2).ProviderBlockedAt.IsZero() || r.get(3).ProviderBlockedAt.IsZero() {
		t.Error("the records do not say so")
	}
}

// Every way in which a whole call fails.
func TestFailedCalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   outcome.Kind
	}{
		{401, `{"code":20003}`, outcome.KindBlocked},
		{403, `{"code":20403}`, outcome.KindBlocked},
		{404, `{"code":20404}`, outcome.KindBlocked},
		{400, `{"code":20001}`, outcome.KindPermanent},
		{429, `{"code":20429}`, outcome.KindTemporary},
		{429, `<html>`, outcome.KindTemporary},
		{500, `{"code":20500}`, outcome.KindTemporary},
		{503, `<html>`, outcome.KindTemporary},
		{201, `{"items":`, outcome.KindTemporary},
		{201, `{}`, outcome.KindTemporary},
		{201, `{"items":"none"}`, outcome.KindTemporary},
		{201, `{"items":[]}`, outcome.KindTemporary},
		{0, ``, outcome.KindTemporary},
	} {
		t.Run(fmt.Sprint(c.status, c.body), func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			r := newRig(t, func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					calls.Add(1)
					if c.status == 0 {
						panic(http.ErrAbortHandler)
					}
					w.WriteHeader(c.status)
					_, _ = fmt.Fprint(w, c.body)
				})
			})
			var msgs []contracts.Message
			for n := range 30 {
				msgs = append(msgs, r.optout(n))
			}
			for _, err := range r.b.Handle(context.Background(), msgs) {
				if err == nil || outcome.Of(err).Kind != c.want {
					t.Errorf("%v", err)
				}
			}
			want := int32(2)
			if c.want == outcome.KindBlocked {
				want = 1
			}
			if calls.Load() != want {
				t.Errorf("%d calls, not %d", calls.Load(), want)
			}
			if !r.get(1).ProviderBlockedAt.IsZero() {
				t.Error("the record says that Twilio has it")
			}
		})
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if _, err := blacklist.New(blacklist.Options{}); err == nil {
		t.Error("nothing is taken")
	}
}
