package sms_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/outcome"
	standin "leadpipe/internal/sandbox/twilio"
	"leadpipe/internal/sms"
	"leadpipe/internal/state"
	"leadpipe/internal/twilio"
)

// handle gives the newest change of the nth number's welcome to a sender.
func (r *rig) handle(s *sms.Sender, n int) error {
	r.tb.Helper()
	return r.handleKey(s, contracts.KeySMS(contracts.SMSWelcome, "100"+string(rune('0'+n))))
}

func (r *rig) handleKey(s *sms.Sender, key string) error {
	r.tb.Helper()
	return s.Handle(context.Background(), []contracts.Message{r.change(key)})[0]
}

// kindOf is what an error asks for; "" for none.
func kindOf(err error) outcome.Kind {
	if err == nil {
		return ""
	}
	return outcome.Of(err).Kind
}

func (r *rig) expect(n int, status contracts.SMSStatus, reason string) contracts.SMS {
	r.tb.Helper()
	got := r.text(n)
	if got.Status != status || got.Error != reason {
		r.tb.Errorf("text %d is %s (%s), not %s (%s)", n, got.Status, got.Error, status, reason)
	}
	return got
}

func (r *rig) calls(want int) {
	r.tb.Helper()
	if got := len(r.twilio.Calls()); got != want {
		r.tb.Errorf("%d calls to Twilio, not %d", got, want)
	}
}

func TestWalk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.runSMS()
	r.queue(span(0, 200)...)
	r.statuses(20*time.Second, 0, 200, contracts.SMSSent)
	r.exactlyOne(0, 200)
	text, m := r.text(7), r.twilio.Messages()[0]
	if text.SID == "" || text.Attempts != 1 || text.SentAt.IsZero() || text.Claim != "" || !text.LeaseUntil.IsZero() {
		t.Errorf("the record: %+v", text)
	}
	lead := get[contracts.Lead](r, contracts.KeyLead("1007"))
	contact := get[contracts.Contact](r, contracts.KeyContact(digits(7)))
	if lead.Status != contracts.LeadContacted || !lead.ContactedAt.Equal(text.SentAt) || contact.LastSMSAt.IsZero() {
		t.Errorf("lead %+v, contact %+v", lead, contact)
	}
	u, err := url.Parse(m.StatusCallback)
	if err != nil || u.Path != "/api/webhooks/sms/status" || !strings.HasPrefix(u.Query().Get("sms"), "welcome.1") || m.From != from {
		t.Errorf("callback %s, from %s: %v", m.StatusCallback, m.From, err)
	}
	r.valid()
}

// What Twilio says about one text, and what the record says then.
func TestAnswersOfTwilio(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *standin.Options) { o.MagicNumbers = true })
	s := r.patient()
	for n, c := range []struct {
		name, to string
		status   contracts.SMSStatus
		reason   string
	}{
		{"not a number", "+33639981211", contracts.SMSFailed, "21211"},
		{"a landline", "+33639981614", contracts.SMSFailed, "21614"},
		{"opted out there", "+33639981610", contracts.SMSSuppressed, "21610"},
		{"told to slow down", "+33639980429", contracts.SMSQueued, "rate_limited"},
		{"nothing to say against it", "+33639980001", contracts.SMSSent, ""},
	} {
		lead, text := welcome(n)
		lead.Phone, text.To = c.to, c.to
		number := strings.TrimPrefix(c.to, "+")
		r.put(contracts.KeyLead(lead.ID), lead)
		r.put(contracts.KeyContact(number), contracts.Contact{Phone: c.to, Leads: []string{lead.ID}, Customers: []string{}})
		r.put(contracts.KeySMS(text.Kind, text.Cause), text)
		if err := r.handle(s, n); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got := r.expect(n, c.status, c.reason)
		if got.Attempts != 1 {
			t.Errorf("%s: %d attempts", c.name, got.Attempts)
		}
		switch c.status {
		case contracts.SMSFailed:
			i := get[contracts.Incident](r, contracts.KeyIncident("sms-country-FR-"+c.reason))
			if i.Action != "nats kv get crm sms.welcome."+text.Cause || !i.ResolvedAt.IsZero() {
				t.Errorf("%s: %+v", c.name, i)
			}
		case contracts.SMSSuppressed:
			o := get[contracts.OptOut](r, contracts.KeyOptOut(number))
			lead := get[contracts.Lead](r, contracts.KeyLead(lead.ID))
			contact := get[contracts.Contact](r, contracts.KeyContact(number))
			if o.Source != contracts.OptOutByProvider || o.ProviderBlockedAt.IsZero() || lead.Status != contracts.LeadOptedOut || contact.OptedOutAt.IsZero() {
				t.Errorf("%s: %+v, %+v, %+v", c.name, o, lead, contact)
			}
		case contracts.SMSQueued:
			if !got.NotBefore.After(time.Now()) {
				t.Errorf("%s: due again at once", c.name)
			}
			if kind := kindOf(r.handle(s, n)); kind != outcome.KindNotYet {
				t.Errorf("%s: handled again: %q", c.name, kind)
			}
		}
	}
	r.calls(5)
	r.valid()
}

// Credentials that are refused cost one question, not a call and a commit a text; it
// goes on by itself.
func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	wrong := func(o *sms.Options) { o.Twilio = r.client(func(o *twilio.Options) { o.Token = "wrong" }) }
	r.queue(span(0, 9)...)
	var msgs []contracts.Message
	for n := range 9 {
		msgs = append(msgs, r.change(contracts.KeySMS(contracts.SMSWelcome, "100"+string(rune('0'+n)))))
	}
	for _, err := range r.sender(wrong).Handle(context.Background(), msgs) {
		if o := outcome.Of(err); o.Kind != outcome.KindBlocked || o.Reason != outcome.Auth {
			t.Errorf("%v", err)
		}
	}
	r.calls(0)
	if n := r.twilio.Count(standin.List); n != 1 {
		t.Errorf("%d questions", n)
	}
	for n := range 9 {
		if text := r.expect(n, contracts.SMSQueued, ""); text.Attempts != 0 {
			t.Errorf("%d attempts", text.Attempts)
		}
	}
	for _, err := range r.sender().Handle(context.Background(), msgs) {
		if err != nil {
			t.Error(err)
		}
	}
	r.exactlyOne(0, 9)
}

// A sender that Twilio does not take is found out by the first text, alone.
func TestWrongSender(t *testing.T) {
	t.Parallel()
	var mended atomic.Bool
	r := newRig(t, func(o *standin.Options) {
		o.Reject = func(string) (int, int) {
			if mended.Load() {
				return 0, 0
			}
			return 400, 21606
		}
	})
	s := r.sender()
	r.queue(span(0, 9)...)
	var msgs []contracts.Message
	for n := range 9 {
		msgs = append(msgs, r.change(contracts.KeySMS(contracts.SMSWelcome, "100"+string(rune('0'+n)))))
	}
	for _, err := range s.Handle(context.Background(), msgs) {
		if o := outcome.Of(err); o.Kind != outcome.KindBlocked || o.Reason != outcome.Refused {
			t.Errorf("%v", err)
		}
	}
	r.calls(1)
	mended.Store(true)
	r.runSMS()
	r.statuses(20*time.Second, 0, 9, contracts.SMSSent)
	r.exactlyOne(0, 9)
}

// While nobody answers at Twilio's address nothing is claimed.
func TestTwilioIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	down := httptest.NewServer(nil)
	down.Close()
	r.queue(0)
	s := r.sender(func(o *sms.Options) { o.Twilio = client(t, down.URL) })
	if kind := kindOf(r.handle(s, 0)); kind != outcome.KindTemporary {
		t.Errorf("%q", kind)
	}
	if text := r.expect(0, contracts.SMSQueued, ""); text.Attempts != 0 {
		t.Errorf("%d attempts", text.Attempts)
	}
}

// Who must not be texted, is not; the confirmation aside.
func TestSuppressed(t *testing.T) {
	t.Parallel()
	at := time.Now().UTC().Truncate(time.Second)
	for name, prepare := range map[string]func(*rig){
		"contact has opted out": func(r *rig) {
			r.put(contracts.KeyContact(digits(0)), contracts.Contact{Phone: number(0), Leads: []string{"1000"}, Customers: []string{}, OptedOutAt: at})
		},
		"an operator's own opt-out": func(r *rig) {
			r.put(contracts.KeyOptOut(digits(0)), contracts.OptOut{Phone: number(0), OptedOutAt: at, Source: contracts.OptOutByOperator})
		},
		"an operator's opt-out without anything in it": func(r *rig) { r.put(contracts.KeyOptOut(digits(0)), struct{}{}) },
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			s := r.sender()
			r.queue(0)
			prepare(r)
			if err := r.handle(s, 0); err != nil {
				t.Error(err)
			}
			r.expect(0, contracts.SMSSuppressed, "")
			r.calls(0)
			confirmation := contracts.SMS{Kind: contracts.SMSOptOutConfirmation, To: number(0), Body: "désabonné", Status: contracts.SMSQueued,
				QueuedAt: at, ExpiresAt: at.Add(time.Hour), Cause: digits(0)}
			key := contracts.KeySMS(confirmation.Kind, confirmation.Cause)
			r.put(key, confirmation)
			if err := r.handleKey(s, key); err != nil {
				t.Error(err)
			}
			r.calls(1)
		})
	}
}

// A STOP that is stored and not processed holds texts back without a call, until it is
// processed, or an operator has allowed texts after it.
func TestStopThatNobodyProcessed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.sender()
	r.queue(0, 1)
	r.stop(0, "SM00000000000000000000000000000001")
	r.stop(1, "SM00000000000000000000000000000002")
	if err := r.handle(s, 0); err != nil {
		t.Error(err)
	}
	if text := r.expect(0, contracts.SMSQueued, "held"); text.Attempts != 0 || !text.NotBefore.After(text.QueuedAt) {
		t.Errorf("%+v", text)
	}
	r.calls(0)
	contact := get[contracts.Contact](r, contracts.KeyContact(digits(1)))
	contact.OptedInAt = time.Now().UTC()
	r.put(contracts.KeyContact(digits(1)), contact)
	if err := r.handle(s, 1); err != nil {
		t.Error(err)
	}
	r.expect(1, contracts.SMSSent, "")
	r.runOptOuts()
	r.runSMS()
	r.statuses(10*time.Second, 0, 1, contracts.SMSSuppressed)
	eventually(t, 30*time.Second, "the confirmation", func() bool { return len(r.twilio.Messages()) == 2 })
	if got := r.sendsPer(); got[number(0)] != 1 || got[number(1)] != 1 { // the opt-out before the opt-in counts no more
		t.Errorf("%v", got)
	}
}

// A look whose answer took too long says nothing any more: it is made again.
func TestOldLookIsRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	looks := 0
	s := r.sender(func(o *sms.Options) {
		o.Look = func(ctx context.Context, subject string) (contracts.Message, bool, error) {
			m, found, err := r.store.Last(ctx, subject)
			if looks++; looks == 1 {
				r.stop(0, "SM00000000000000000000000000000001")
				time.Sleep(sms.MaxGap + time.Millisecond)
			}
			return m, found, err
		}
	})
	r.queue(0)
	if err := r.handle(s, 0); err != nil {
		t.Error(err)
	}
	r.expect(0, contracts.SMSQueued, "held")
	r.calls(0)
	if looks != 2 {
		t.Errorf("%d looks", looks)
	}
}

// A look that fails, or a claim that has become old, holds a text back.
func TestGateInDoubt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for n, look := range []sms.Look{
		func(context.Context, string) (contracts.Message, bool, error) {
			return contracts.Message{}, false, errors.New("no leader")
		},
		func(ctx context.Context, _ string) (contracts.Message, bool, error) { // again and again too slow
			time.Sleep(sms.MaxGap + time.Millisecond)
			return contracts.Message{}, false, ctx.Err()
		},
	} {
		r.queue(n)
		if err := r.handle(r.sender(func(o *sms.Options) { o.Look = look }), n); err != nil {
			t.Error(err)
		}
		if text := r.expect(n, contracts.SMSQueued, "held"); text.Attempts != 0 || !text.ClaimedAt.IsZero() {
			t.Errorf("%+v", text)
		}
	}
	// Between claim and call the process stood still for a while: its lease may be over
	// before the call is.
	r.queue(2)
	if err := r.handle(r.sender(func(o *sms.Options) {
		sms.WithPoint(o, func(point string) {
			if point == sms.Claimed {
				time.Sleep(lease - 2*callTime + time.Millisecond)
			}
		})
	}), 2); err != nil {
		t.Error(err)
	}
	r.expect(2, contracts.SMSQueued, "held")
	r.calls(0)
}

func TestExpired(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.queue(0)
	s := r.sender(func(o *sms.Options) { o.Now = func() time.Time { return time.Now().Add(48 * time.Hour) } })
	if err := r.handle(s, 0); err != nil {
		t.Error(err)
	}
	r.expect(0, contracts.SMSExpired, "")
	r.calls(0)
}

// Quiet hours delay a welcome, and nothing else.
func TestQuietHoursDelayMarketing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	quiet, err := sms.ParseQuietHours("22:00-08:00 Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	night := time.Date(2026, 11, 24, 22, 30, 0, 0, time.UTC)
	var now atomic.Pointer[time.Time]
	now.Store(&night)
	s := r.sender(func(o *sms.Options) { o.Quiet, o.Now = quiet, func() time.Time { return *now.Load() } })
	for _, kind := range []contracts.SMSKind{contracts.SMSWelcome, contracts.SMSPaymentFailed, contracts.SMSOptOutConfirmation} {
		key := contracts.KeySMS(kind, "1000")
		r.put(key, contracts.SMS{Kind: kind, To: number(0), Body: string(kind), Status: contracts.SMSQueued,
			QueuedAt: night, ExpiresAt: night.Add(48 * time.Hour), Cause: "1000"})
		err := r.handleKey(s, key)
		if kind != contracts.SMSWelcome {
			if err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			continue
		}
		if o := outcome.Of(err); o.Kind != outcome.KindNotYet || o.After < 8*time.Hour+29*time.Minute || o.After > 8*time.Hour+31*time.Minute {
			t.Errorf("%s: %s after %s", kind, o.Kind, o.After)
		}
	}
	r.calls(2)
	morning := night.Add(9 * time.Hour)
	now.Store(&morning)
	if err := r.handle(s, 0); err != nil {
		t.Error(err)
	}
	r.calls(3)
}

// Quiet time does not age a welcome: it leaves at the first allowed moment, even where
// that is later than SMS_MAX_AGE after the form. Awake, it ages as ever.
func TestQuietTimeDoesNotAge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	quiet, err := sms.ParseQuietHours("20:00-09:00 Europe/Paris sundays holidays")
	if err != nil {
		t.Fatal(err)
	}
	evening := time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC) // a Saturday, 19:00 in Paris
	monday := time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)   // 09:00 there
	var now atomic.Pointer[time.Time]
	s := r.sender(func(o *sms.Options) { o.Quiet, o.Now = quiet, func() time.Time { return *now.Load() } })
	const age = 3 * time.Hour
	at := func(n int, t0 time.Time) {
		t.Helper()
		now.Store(&t0)
		_ = r.handle(s, n)
	}
	for n := range 2 {
		r.put(contracts.KeySMS(contracts.SMSWelcome, fmt.Sprint(1000+n)), contracts.SMS{Kind: contracts.SMSWelcome, To: number(n), Body: "Bonjour",
			Status: contracts.SMSQueued, QueuedAt: evening, ExpiresAt: evening.Add(age), Cause: fmt.Sprint(1000 + n)})
		at(n, evening.Add(90*time.Minute)) // 20:30: an hour of its three has passed
	}
	r.calls(0)
	at(0, monday.Add(time.Minute))
	r.calls(1)
	at(1, monday.Add(age))
	r.calls(1)
	if got := r.text(0).Status; got != contracts.SMSSent && got != contracts.SMSDelivered {
		t.Errorf("the welcome of Saturday evening is %s on Monday morning", got)
	}
	if got := r.text(1).Status; got != contracts.SMSExpired {
		t.Errorf("the welcome that was not sent for four waking hours is %s", got)
	}
}

// Each way in which Twilio leaves us in the dark ends with exactly one text.
func TestUnknownOutcomes(t *testing.T) {
	t.Parallel()
	faults := standin.Faults()
	var met sync.Map
	r := newRig(t, func(o *standin.Options) {
		o.ListLag = callTime / 2
		o.Fault = func(c standin.Call) standin.Fault {
			for n, fault := range faults {
				if c.Op == standin.Send && c.To == number(n) {
					if _, again := met.LoadOrStore(n, true); !again {
						return fault
					}
				}
			}
			return ""
		}
	})
	r.runSMS()
	r.queue(span(0, len(faults))...)
	r.statuses(30*time.Second, 0, len(faults), contracts.SMSSent, contracts.SMSDelivered)
	r.exactlyOne(0, len(faults))
	calls := map[string]int{}
	for _, c := range r.twilio.Calls() {
		calls[c.To]++
	}
	for n, fault := range faults {
		want := 2
		if fault.Leaves() {
			want = 1
		}
		if text := r.text(n); calls[number(n)] != want || text.Attempts != want {
			t.Errorf("%s: %d attempts, %d calls, not %d", fault, text.Attempts, calls[number(n)], want)
		}
	}
}

// A lease that runs is somebody else's business; one that is over is looked into.
func TestLease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.sender()
	now := time.Now().UTC()
	_, text := welcome(0)
	text.Status, text.Claim, text.ClaimedAt, text.LeaseUntil, text.Attempts = contracts.SMSSending, "theirs", now, now.Add(time.Hour), 1
	r.put("sms.welcome.1000", text)
	if o := outcome.Of(r.handle(s, 0)); o.Kind != outcome.KindNotYet || o.After < 59*time.Minute {
		t.Errorf("%s after %s", o.Kind, o.After)
	}
	// A clock that is ahead of the server's must not end a lease that was just taken.
	text.LeaseUntil = now.Add(-time.Hour)
	r.put("sms.welcome.1000", text)
	if o := outcome.Of(r.handle(s, 0)); o.Kind != outcome.KindNotYet || o.After > lease+time.Second {
		t.Errorf("%s after %s", o.Kind, o.After)
	}
	r.calls(0)
}

// A number that opts out while the fate of its text is unknown is looked for, not
// called; and its record tells what was.
func TestOptOutWhileUnknown(t *testing.T) {
	t.Parallel()
	for fault, want := range map[standin.Fault]contracts.SMSStatus{
		standin.HangUpAfter: contracts.SMSSent, standin.HangUpBefore: contracts.SMSSuppressed,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(o *standin.Options) {
				o.StepDelay = time.Minute
				o.Fault = func(c standin.Call) standin.Fault {
					if c.Op == standin.Send {
						return fault
					}
					return ""
				}
			})
			r.queue(0)
			s := r.sender()
			if err := r.handle(s, 0); err != nil {
				t.Error(err)
			}
			r.expect(0, contracts.SMSSending, "")
			contact := get[contracts.Contact](r, contracts.KeyContact(digits(0)))
			contact.OptedOutAt = time.Now().UTC()
			r.put(contracts.KeyContact(digits(0)), contact)
			r.runSMS()
			r.statuses(20*time.Second, 0, 1, want)
			r.calls(1)
		})
	}
}

// A text that is old when it is first seen may have gone out before the bucket was
// lost; Twilio knows.
func TestOldTextIsLookedUpFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.sender()
	r.queue(0)
	if err := r.handle(s, 0); err != nil {
		t.Fatal(err)
	}
	r.calls(1)
	_, text := welcome(0)
	r.put("sms.welcome.1000", text) // as after a replay into an empty bucket
	later := r.sender(func(o *sms.Options) { o.Now = func() time.Time { return time.Now().Add(time.Hour) } })
	if err := r.handle(later, 0); err != nil {
		t.Error(err)
	}
	r.calls(1)
	if got := r.text(0); got.SID != r.twilio.Messages()[0].SID || got.Attempts != 0 {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsNothingToDo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.sender()
	_, text := welcome(0)
	for _, status := range []contracts.SMSStatus{contracts.SMSSent, contracts.SMSDelivered, contracts.SMSUndelivered,
		contracts.SMSFailed, contracts.SMSSuppressed, contracts.SMSExpired} {
		text.Status = status
		r.put("sms.welcome.1000", text)
		if err := r.handle(s, 0); err != nil {
			t.Errorf("%s: %v", status, err)
		}
	}
	if errs := s.Handle(context.Background(), []contracts.Message{{Subject: "$KV.crm.sms.welcome.1", Sequence: 1}}); errs[0] != nil {
		t.Errorf("deleted: %v", errs[0])
	}
	for name, data := range map[string]string{"not JSON": "{", "nobody to text": `{"status":"queued"}`, "a local number": `{"status":"queued","to":"0639980001"}`} {
		errs := s.Handle(context.Background(), []contracts.Message{{Subject: "$KV.crm.sms.welcome.1", Sequence: 1, Data: []byte(data)}})
		if kind := kindOf(errs[0]); kind != outcome.KindPermanent {
			t.Errorf("%s: %q", name, kind)
		}
	}
	// A message that the record has left behind: the newer revision has its own.
	r.queue(1)
	old := r.change("sms.welcome.1001")
	if err := r.handle(s, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Handle(context.Background(), []contracts.Message{old})[0]; err != nil {
		t.Error(err)
	}
	r.calls(1)
}

func TestOptions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := sms.Options{Store: r.store, Look: r.store.Last, Twilio: r.client(), From: from, Log: r.logs.logger()}
	if _, err := sms.New(good); err != nil {
		t.Errorf("defaults: %v", err)
	}
	for name, change := range map[string]func(*sms.Options){
		"no store":  func(o *sms.Options) { o.Store = nil },
		"no look":   func(o *sms.Options) { o.Look = nil },
		"no client": func(o *sms.Options) { o.Twilio = nil },
		"no sender": func(o *sms.Options) { o.From = "" },
		"no log":    func(o *sms.Options) { o.Log = nil },
		"a lease shorter than the calls under it": func(o *sms.Options) { o.Lease = 2 * callTime },
	} {
		o := good
		change(&o)
		if _, err := sms.New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// One Belgian among French leads is one text that ends; while a sender reaches nobody at
// all it is the sender.
// https://www.twilio.com/docs/api/errors/21606
func TestASenderThatDoesNotReachACountry(t *testing.T) {
	t.Parallel()
	const belgian = "+32470123456"
	var open atomic.Bool
	r := newRig(t, func(o *standin.Options) {
		o.Reject = func(to string) (int, int) {
			if strings.HasPrefix(to, "+32") && !open.Load() {
				return 400, 21606
			}
			return 0, 0
		}
	})
	r.queue(span(0, 30)...)
	lead, text := welcome(99)
	lead.Phone, text.To = belgian, belgian
	r.put(contracts.KeyLead(lead.ID), lead)
	r.put(contracts.KeySMS(text.Kind, text.Cause), text)
	r.queue(span(30, 60)...)
	stop := r.runSMS()
	r.statuses(20*time.Second, 0, 60, contracts.SMSSent)
	belgianText := func() contracts.SMS { return get[contracts.SMS](r, contracts.KeySMS(text.Kind, text.Cause)) }
	eventually(t, 20*time.Second, "the Belgian's text ends", func() bool { return belgianText().Status == contracts.SMSFailed })
	stop()
	if i := get[contracts.Incident](r, contracts.KeyIncident("sms-country-BE-21606")); !i.ResolvedAt.IsZero() || i.Count != 1 {
		t.Errorf("%+v", i)
	}
	// The sender is registered there: the next text closes the incident.
	open.Store(true)
	lead.ID, text.Cause, text.LeadID = "2000", "2000", "2000"
	r.put(contracts.KeyLead(lead.ID), lead)
	r.put(contracts.KeySMS(text.Kind, text.Cause), text)
	r.runSMS()
	eventually(t, 20*time.Second, "the incident is closed", func() bool {
		return !get[contracts.Incident](r, contracts.KeyIncident("sms-country-BE-21606")).ResolvedAt.IsZero()
	})
}

// A sender's full queue is a matter of time.
// https://www.twilio.com/docs/api/errors/21611
func TestQueueFull(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	full.Store(true)
	r := newRig(t, func(o *standin.Options) {
		o.Reject = func(string) (int, int) {
			if full.Load() {
				return 400, 21611
			}
			return 0, 0
		}
	})
	r.queue(0)
	r.runSMS()
	eventually(t, 20*time.Second, "a second try", func() bool { return r.text(0).Attempts >= 2 })
	if got := r.text(0).Status; got == contracts.SMSFailed {
		t.Errorf("given up: %s", got)
	}
	full.Store(false)
	r.statuses(20*time.Second, 0, 1, contracts.SMSSent)
}

// While a person has yet to decide what an answer meant, no welcome leaves, and nothing is
// written meanwhile; an unpaid invoice is told all the same.
func TestUnclearAnswerHoldsTheWelcome(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.queue(0)
	contact := get[contracts.Contact](r, contracts.KeyContact(digits(0)))
	contact.UnclearAt = time.Now().UTC()
	r.put(contracts.KeyContact(digits(0)), contact)
	bill := contracts.SMS{Kind: contracts.SMSPaymentFailed, To: number(0), Body: "Facture", Status: contracts.SMSQueued, QueuedAt: time.Now().UTC(), Cause: "in_1.1"}
	r.put(contracts.KeySMS(bill.Kind, bill.Cause), bill)
	s := r.patient()
	before := r.sequence()
	for range 5 {
		if o := outcome.Of(r.handle(s, 0)); o.Kind != outcome.KindNotYet || o.After < time.Second {
			t.Errorf("%s after %s", o.Kind, o.After)
		}
	}
	if n := r.sequence() - before; n != 0 {
		t.Errorf("%d revisions of a text that waits", n)
	}
	r.calls(0)
	if errs := s.Handle(t.Context(), []contracts.Message{r.change(contracts.KeySMS(bill.Kind, bill.Cause))}); errs[0] != nil {
		t.Error(errs[0])
	}
	r.calls(1)
	if err := r.store.Update(t.Context(), func(tx *state.Tx) error { return consent.NoOptOut(tx, number(0), time.Now().UTC()) }); err != nil {
		t.Fatal(err)
	}
	if err := r.handle(s, 0); err != nil {
		t.Error(err)
	}
	r.calls(2)
}

// What is looked up after an unknown outcome: under the address by which it went, with
// what a trial account puts before it, without its words, and not what another record has.
func TestWhatIsLookedUp(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*standin.Options){
		"by RCS":          func(o *standin.Options) { o.RCS = func(string) bool { return true } },
		"a trial account": func(o *standin.Options) { o.Trial = true },
		"redacted":        func(o *standin.Options) { o.Redact = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var hungUp atomic.Bool
			r := newRig(t, change, func(o *standin.Options) {
				o.Fault = func(c standin.Call) standin.Fault {
					if c.Op == standin.Send && !hungUp.Swap(true) {
						return standin.HangUpAfter
					}
					return ""
				}
			})
			r.queue(0)
			r.runSMS()
			r.statuses(20*time.Second, 0, 1, contracts.SMSSent, contracts.SMSDelivered)
			r.calls(1)
		})
	}
	t.Run("two invoices with the same words", func(t *testing.T) {
		t.Parallel()
		var calls atomic.Int32
		r := newRig(t, func(o *standin.Options) {
			o.Fault = func(c standin.Call) standin.Fault {
				if c.Op == standin.Send && calls.Add(1) == 2 {
					return standin.HangUpBefore // the second invoice's text is not taken
				}
				return ""
			}
		})
		s := r.sender()
		for _, cause := range []string{"in_1.1", "in_2.1"} {
			bill := contracts.SMS{Kind: contracts.SMSPaymentFailed, To: number(0), Body: "Bonjour, votre paiement de 29,00 € n'a pas abouti.",
				Status: contracts.SMSQueued, QueuedAt: time.Now().UTC(), Cause: cause}
			r.put(contracts.KeySMS(bill.Kind, cause), bill)
			if errs := s.Handle(t.Context(), []contracts.Message{r.change(contracts.KeySMS(bill.Kind, cause))}); errs[0] != nil {
				t.Fatal(errs[0])
			}
		}
		r.runSMS()
		eventually(t, 20*time.Second, "both invoices are told", func() bool { return len(r.twilio.Messages()) == 2 })
	})
}

// A status that has not come for an hour is fetched, once, and has its consequences.
func TestMissingStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *standin.Options) {
		o.Undelivered = func(to string) int {
			if to == number(1) {
				return 30003
			}
			return 0
		}
	})
	s := r.patient()
	r.queue(0, 1, 2)
	for n := range 3 {
		if err := r.handle(s, n); err != nil {
			t.Fatal(err)
		}
	}
	if round, err := s.LookAfter(t.Context(), r.walk, true); err != nil || round != (sms.Round{}) {
		t.Errorf("asked after texts of just now: %+v, %v", round, err)
	}
	later := r.sender(func(o *sms.Options) { o.Now = func() time.Time { return time.Now().Add(2 * time.Hour) } })
	eventually(t, 30*time.Second, "the stand-in delivers", func() bool {
		return r.twilio.Messages()[0].Status == "delivered" && r.twilio.Messages()[1].Status == "undelivered"
	})
	if round, err := later.LookAfter(t.Context(), r.walk, true); err != nil || round != (sms.Round{Learnt: 3}) {
		t.Errorf("%+v, %v", round, err)
	}
	if got := r.text(0).Status; got != contracts.SMSDelivered {
		t.Errorf("text 0 is %s", got)
	}
	if got := r.text(1); got.Status != contracts.SMSUndelivered || got.Error != "30003" {
		t.Errorf("text 1: %+v", got)
	}
	if l := get[contracts.Lead](r, contracts.KeyLead("1001")); l.Status != contracts.LeadNew {
		t.Errorf("contacted by a text that did not arrive: %s", l.Status)
	}
	if round, err := later.LookAfter(t.Context(), r.walk, true); err != nil || round != (sms.Round{}) {
		t.Errorf("asked again: %+v, %v", round, err)
	}
}

// A text whose change the server has lost track of is taken up from its record, once, and
// one that is not due is left alone.
func TestOverdueTextsAreTakenUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.queue(0, 1, 2)
	s := r.patient()
	if round, err := s.LookAfter(t.Context(), r.walk, true); err != nil || round != (sms.Round{}) {
		t.Fatalf("texts of just now: %+v, %v", round, err)
	}
	waits := r.text(1)
	waits.NotBefore = time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	r.put(contracts.KeySMS(contracts.SMSWelcome, "1001"), waits)
	claimed := r.text(2) // by a process that died
	claimed.Status, claimed.Claim, claimed.Attempts = contracts.SMSSending, "of the dead", 1
	claimed.ClaimedAt, claimed.LeaseUntil = time.Now(), time.Now().Add(time.Second)
	r.put(contracts.KeySMS(contracts.SMSWelcome, "1002"), claimed)

	later := r.sender(func(o *sms.Options) { o.Now = func() time.Time { return time.Now().Add(10 * time.Minute) } })
	if round, err := later.LookAfter(t.Context(), r.walk, true); err != nil || round != (sms.Round{Taken: 2}) {
		t.Errorf("%+v, %v", round, err)
	}
	for _, n := range []int{0, 2} {
		if got := r.text(n); got.Status != contracts.SMSSent && got.Status != contracts.SMSDelivered {
			t.Errorf("text %d is %s", n, got.Status)
		}
	}
	if got := r.text(1); got.Status != contracts.SMSQueued {
		t.Errorf("the text that waits is %s", got.Status)
	}
	if round, err := later.LookAfter(t.Context(), r.walk, true); err != nil || round.Taken != 0 {
		t.Errorf("again: %+v, %v", round, err)
	}
	if n := len(r.twilio.Messages()); n != 2 {
		t.Errorf("%d texts went out, should be 2", n)
	}
}
