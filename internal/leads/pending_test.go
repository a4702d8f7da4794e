package leads_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/identity"
	"leadpipe/internal/outcome"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/state"
)

// quick makes the consumer of a rig lose its patience at once.
func (r *rig) quick() *rig {
	r.patience, r.timeout = 300*time.Millisecond, 300*time.Millisecond
	r.serve(r.meta)
	return r
}

// run runs the real loop until the test ends, and gives what it logs.
func (r *rig) run() *lockedBuffer {
	r.t.Helper()
	log := &lockedBuffer{}
	loop, err := bus.NewLoop(r.JetStream("consumers"), bus.Options{Stream: contracts.StreamWebhooks, Durable: contracts.Leads, Handle: r.handle, Max: 4, Workers: 64,
		Store: r.store, Log: slog.New(slog.NewJSONHandler(log, nil)), Metrics: bus.NewMetrics(prometheus.NewRegistry())})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	})
	return log
}

// publish announces leads as the edge does.
func (r *rig) publish(ls ...meta.Lead) {
	r.t.Helper()
	var msgs []contracts.Message
	for _, l := range ls {
		msgs = append(msgs, announce(l, meta.AsStrings))
	}
	if err := bus.NewPublisher(r.JetStream("edge")).Publish(r.t.Context(), msgs); err != nil {
		r.t.Fatal(err)
	}
}

// stored is when a stream stored each message of a subject, by what id makes of it.
func (r *rig) stored(stream, subject string, id func(jetstream.Msg) string) map[string]time.Time {
	r.t.Helper()
	c, err := r.js.OrderedConsumer(r.t.Context(), stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]time.Time{}
	for {
		m, err := c.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			r.t.Fatal(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			r.t.Fatal(err)
		}
		all[id(m)] = meta.Timestamp
		if meta.NumPending == 0 {
			return all
		}
	}
}

// TestThreeThatHang: 60 good leads, at one a second with STRESS=1, beside three whose reads
// never end. The good ones take no notice, and the three are there, pending.
func TestThreeThatHang(t *testing.T) {
	t.Parallel()
	const n = 60
	r := newRig(t)
	r.meta.SetLatency(50*time.Millisecond, 400*time.Millisecond)
	took := n * time.Second
	if os.Getenv("STRESS") == "" {
		took, r.patience, r.timeout = 3*time.Second, time.Second/2, 3*time.Second/2
		r.serve(r.meta)
	}
	var hanging []meta.Lead
	for i := range 3 {
		l := person(strconv.Itoa(9000+i), "Zoé Martin", "", "", morning)
		r.meta.AddLead(l)
		r.meta.SetFaultOf(l.ID, meta.Hang)
		hanging = append(hanging, l)
	}
	r.run()
	r.publish(hanging[0])
	tick := time.NewTicker(took / n)
	defer tick.Stop()
	for i := range n {
		if i == n/3 || i == 2*n/3 {
			r.publish(hanging[3*i/n])
		}
		l := person(strconv.Itoa(1000+i), "Zoé Martin", fmt.Sprintf("+336399801%02d", i), "", morning)
		r.meta.AddLead(l)
		r.publish(l)
		<-tick.C
	}
	records := func() int { return len(r.keysOf("lead.")) }
	await(t, "all records", func() bool { return records() == n+3 })
	announced := r.stored(contracts.StreamWebhooks, contracts.SubjectFacebookLeadgen, func(m jetstream.Msg) string {
		return strings.TrimPrefix(m.Headers().Get(jetstream.MsgIDHeader), "facebook:")
	})
	recorded := r.stored(contracts.StreamCRM, contracts.SubjectOfKey("lead.*"), func(m jetstream.Msg) string {
		return strings.TrimPrefix(contracts.KeyOfSubject(m.Subject()), "lead.")
	})
	var waits []time.Duration
	for i := range n {
		id := strconv.Itoa(1000 + i)
		waits = append(waits, recorded[id].Sub(announced[id]))
		if l, _ := get[contracts.Lead](r, "lead."+id); l.Pending || l.Phone == "" {
			t.Errorf("%+v", l)
		}
	}
	slices.Sort(waits)
	t.Logf("from announcement to record: median %v, 99 of 100 %v", waits[n/2], waits[n*99/100])
	if worst := waits[n*99/100]; worst >= 3*time.Second {
		t.Errorf("a good lead took %v beside three that hang", worst)
	}
	for _, l := range hanging {
		if l, _ := get[contracts.Lead](r, "lead."+l.ID); !l.Pending {
			t.Errorf("%+v", l)
		}
	}
}

func (r *rig) keysOf(kind string) []string {
	r.t.Helper()
	s, err := r.js.Stream(r.t.Context(), contracts.StreamCRM)
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := s.Info(r.t.Context(), jetstream.WithSubjectFilter(contracts.SubjectOfKey(kind+">")))
	if err != nil {
		r.t.Fatal(err)
	}
	var keys []string
	for subject := range info.State.Subjects {
		keys = append(keys, contracts.KeyOfSubject(subject))
	}
	return keys
}

// TestPendingUntilGraphAnswers: whatever keeps Graph from giving leads, each is there with
// what its announcement says, and with its form, and a text, once Graph gives it.
func TestPendingUntilGraphAnswers(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string][]meta.Fault{
		"each its own": {meta.NotShown, meta.Unsupported, meta.Forbidden, meta.NoFields, meta.Hang, meta.HangUp, meta.Temporary, meta.HTML500, meta.HTML503},
		"the token":    {meta.TokenExpired, ""},
		"limits":       {meta.AppLimit, meta.UserLimit, meta.OldPageLimit, meta.CustomLimit, meta.PageLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t).quick()
			var ls []meta.Lead
			for i, fault := range faults {
				l := person(strconv.Itoa(1000+i), "Zoé Martin", fmt.Sprintf("+336399801%02d", i), "zoe@example.com", morning)
				l.Platform, l.CampaignID = "ig", "444"
				ls = append(ls, l)
				r.meta.AddLead(l)
				r.meta.SetFaultOf(l.ID, fault)
			}
			if name == "the token" {
				r.meta.SetFault(meta.TokenExpired)
			}
			log := r.run()
			r.publish(ls...)
			await(t, "all records", func() bool { return len(r.keysOf("lead.")) == len(ls) })
			for i, l := range ls {
				lead, _ := get[contracts.Lead](r, "lead."+l.ID)
				lead.Lookups, lead.Announced = 0, 0
				if diff := cmp.Diff(contracts.Lead{ID: l.ID, CreatedAt: morning, PageID: "111", FormID: "222", AdID: "333", Status: contracts.LeadNew,
					PhoneIssue: "missing", Pending: true, Answers: contracts.Answers{}}, lead); diff != "" {
					t.Errorf("%s (-want +got):\n%s", faults[i], diff)
				}
			}
			if keys := r.keysOf("sms."); len(keys) > 0 {
				t.Errorf("%v", keys)
			}
			r.bucket() // as the schemas say
			for _, secret := range []string{token, secret, meta.Proof(token, secret)} {
				if strings.Contains(log.String(), secret) {
					t.Errorf("%q is in the log", secret)
				}
			}
			if name == "limits" {
				return // for a minute no call is made: TestNoCallDuringARateLimit
			}
			r.meta.SetFault("")
			for _, l := range ls {
				r.meta.SetFaultOf(l.ID, "")
			}
			await(t, "all texts", func() bool { return len(r.keysOf("sms.welcome.")) == len(ls) })
			for i, l := range ls {
				phone := l.Fields[1].Values[0]
				lead, _ := get[contracts.Lead](r, "lead."+l.ID)
				if diff := cmp.Diff(contracts.Lead{ID: l.ID, CreatedAt: morning, PageID: "111", FormID: "222", AdID: "333", CampaignID: "444", Platform: "ig",
					Status: contracts.LeadNew, Name: "Zoé Martin", FirstName: "Zoé", Phone: phone, Email: "zoe@example.com",
					Answers: contracts.Answers{"full_name": {"Zoé Martin"}, "phone_number": {phone}, "email": {"zoe@example.com"}}}, lead); diff != "" {
					t.Errorf("%s, complete (-want +got):\n%s", faults[i], diff)
				}
				if sms, ok := get[contracts.SMS](r, "sms.welcome."+l.ID); !ok || !sms.ExpiresAt.Equal(morning.Add(48*time.Hour)) {
					t.Errorf("%s: text %v %+v", faults[i], ok, sms)
				}
			}
			await(t, "no open incident", func() bool { return len(r.open()) == 0 })
			r.bucket()
		})
	}
}

// deliver hands a lead's announcement of some age to the consumer, for the attempt-th time.
func (r *rig) deliver(l meta.Lead, attempt int, age time.Duration) error {
	r.t.Helper()
	m := announce(l, meta.AsNumbers)
	m.Attempt, m.Time = attempt, time.Now().Add(-age).Truncate(time.Second)
	id, err := strconv.ParseUint(l.ID, 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	m.Sequence = id
	return r.handle(context.Background(), []contracts.Message{m})[0]
}

func (r *rig) open() []string {
	x, _ := get[contracts.IncidentIndex](r, contracts.KeyIncidentIndex)
	var ids []string
	for _, o := range x.Open {
		ids = append(ids, o.ID)
	}
	return ids
}

// TestNotShown: a lead that Graph refuses, and no others with it, is given up after eight
// such answers; what came of an outage between them does not count. It stays pending, and
// its replay completes it.
func TestNotShown(t *testing.T) {
	t.Parallel()
	for _, fault := range []meta.Fault{meta.NotShown, meta.Unsupported} {
		r := newRig(t)
		l := person("1", "Zoé", mobile, "", morning)
		attempt := 0
		try := func(f meta.Fault, age time.Duration) *outcome.Error {
			r.meta.SetFaultOf("1", f)
			attempt++
			return outcome.Of(r.deliver(l, attempt, age))
		}
		if o := try(fault, 0); o.Kind != outcome.KindNotYet || o.After > 11*time.Second || len(r.keysOf("lead.")) > 0 {
			t.Errorf("at once: %+v; Graph may be a little late", o)
		}
		for i := 1; i <= 8; i++ {
			for range 40 {
				if o := try(meta.Temporary, time.Minute); o.Kind != outcome.KindNotYet {
					t.Fatalf("%s: an outage gave it up: %+v", fault, o)
				}
			}
			want := outcome.KindNotYet
			if i == 8 {
				want = outcome.KindPermanent
			}
			if o := try(fault, time.Minute); o.Kind != want || o.Reason != outcome.Unknown {
				t.Errorf("%s %d: %+v", fault, i, o)
			}
		}
		i, _ := get[contracts.Incident](r, "incident.leads-1")
		lead, _ := get[contracts.Lead](r, "lead.1")
		if !slices.Equal(r.open(), []string{"leads-1"}) || !strings.HasPrefix(i.Action, "nats consumer reset WEBHOOKS leads --sequence 1") || !lead.Pending {
			t.Errorf("%v, %+v, %+v", r.open(), i, lead)
		}
		before := r.sequence()
		for range 3 { // a replay that finds the same
			if o := outcome.Of(r.deliver(l, 1, time.Hour)); o.Kind != outcome.KindPermanent {
				t.Errorf("replayed: %+v", o)
			}
		}
		if n := r.sequence() - before; n != 0 {
			t.Errorf("the replay wrote %d messages", n)
		}
		r.meta.SetFaultOf("1", "")
		r.meta.AddLead(l)
		if err := r.deliver(l, 1, time.Hour); err != nil {
			t.Error(err)
		}
		if lead, _ := get[contracts.Lead](r, "lead.1"); lead.Pending || lead.Lookups != 0 || lead.Phone != mobile || len(r.open()) > 0 {
			t.Errorf("%+v, open %v", lead, r.open())
		}
	}
}

// TestPermissionMissing: one incident for the page, however many leads and however often,
// after the eighth answer; nothing is given up, and what comes with its fields closes it.
func TestPermissionMissing(t *testing.T) {
	t.Parallel()
	for _, fault := range []meta.Fault{meta.NoFields, meta.Forbidden} {
		r := newRig(t)
		var ls []meta.Lead
		for i := range 5 {
			l := person(strconv.Itoa(1+i), "Zoé", fmt.Sprintf("+336399801%02d", i), "", morning)
			r.meta.AddLead(l)
			ls = append(ls, l)
		}
		r.meta.SetFault(fault)
		round := func(attempt int, age time.Duration) {
			for _, l := range ls {
				if o := outcome.Of(r.deliver(l, attempt, age)); o.Kind != outcome.KindNotYet || o.After > 3*time.Minute {
					t.Fatalf("%s, attempt %d: %+v", fault, attempt, o)
				}
			}
		}
		for attempt := 1; attempt <= 7; attempt++ {
			round(attempt, time.Minute)
		}
		if open := r.open(); len(open) > 0 {
			t.Errorf("%s: already open: %v", fault, open)
		}
		round(8, 2*time.Minute)
		want := []string{"leads-permission-111"}
		if open := r.open(); !slices.Equal(open, want) {
			t.Fatalf("%s: open %v", fault, open)
		}
		i, _ := get[contracts.Incident](r, "incident.leads-permission-111")
		if !strings.Contains(i.Reason, "leads_retrieval") || !strings.HasPrefix(i.Action, "nats consumer reset WEBHOOKS leads --sequence 1 ") || i.Severity != contracts.SeverityError || i.Count != len(ls) {
			t.Errorf("%+v", i)
		}
		before := r.sequence()
		for attempt := 9; attempt <= 300; attempt += 20 { // days
			round(attempt, time.Duration(attempt)*10*time.Minute)
		}
		if n := r.sequence() - before; n != 0 || !slices.Equal(r.open(), want) {
			t.Errorf("%s: days later %d messages were written, open %v", fault, n, r.open())
		}
		r.meta.SetFault("")
		for _, l := range ls {
			if err := r.deliver(l, 301, 3*24*time.Hour); err != nil {
				t.Error(err)
			}
		}
		if n := len(r.keysOf("sms.welcome.")); n != len(ls) || len(r.open()) > 0 {
			t.Errorf("%s: %d texts, open %v", fault, n, r.open())
		}
	}
}

// TestLongOutage: one incident tells of it, and the first answer closes it.
func TestLongOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, other := person("1", "Zoé", mobile, "", morning), person("2", "Zoé", "+33639980103", "", morning)
	r.meta.AddLead(l)
	r.meta.AddLead(other)
	r.meta.SetFault(meta.HTML503)
	for attempt := range 40 {
		_ = r.deliver(l, attempt+1, 9*time.Minute)
		_ = r.deliver(other, attempt+1, time.Minute)
	}
	if open := r.open(); len(open) > 0 {
		t.Errorf("%v after nine minutes", open)
	}
	_ = r.deliver(l, 41, 11*time.Minute)
	if open := r.open(); !slices.Equal(open, []string{"leads-graph"}) {
		t.Errorf("%v after eleven minutes", open)
	}
	r.meta.SetFault("")
	if err := r.deliver(other, 42, time.Minute); err != nil || len(r.open()) > 0 {
		t.Errorf("%v, open %v", err, r.open())
	}
	r.meta.SetFault(meta.HTML503)
	if o := outcome.Of(r.deliver(l, 400, 8*24*time.Hour)); o.Kind != outcome.KindPermanent || !slices.Equal(r.open(), []string{"leads-1"}) {
		t.Errorf("after a week: %+v, open %v", o, r.open())
	}
}

// TestExpiredToken: while Graph answers 190 every lead is there, pending, and one incident
// says what to do, whatever else goes through; with the token right again all go on by
// themselves.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	r := newRig(t).quick()
	// STRESS=1 makes it the minute that such an outage easily lasts, with leads all the time.
	outage := time.Second
	if os.Getenv("STRESS") != "" {
		outage = time.Minute
	}
	known := person("1", "Zoé Martin", "+33639980199", "", morning)
	r.arrive(known)
	calls := len(r.meta.Calls())
	const n, waves = 40, 4
	r.meta.SetFault(meta.TokenExpired)
	log := r.run()
	began := time.Now()
	for wave := range waves {
		var ls []meta.Lead
		for i := n * wave / waves; i < n*(wave+1)/waves; i++ {
			ls = append(ls, person(strconv.Itoa(1000+i), "Zoé Martin", fmt.Sprintf("+336399801%02d", i), "", morning))
			r.meta.AddLead(ls[len(ls)-1])
		}
		r.publish(ls...)
		time.Sleep(time.Until(began.Add(outage * time.Duration(wave+1) / waves)))
	}
	await(t, "all leads, pending", func() bool { return len(r.keysOf("lead.")) == n+1 })
	await(t, "an incident", func() bool { return slices.Equal(r.open(), []string{"leads-auth"}) })
	r.publish(known) // goes through, and says nothing of the token
	await(t, "the known lead's end", func() bool {
		c, err := r.js.Consumer(t.Context(), contracts.StreamWebhooks, contracts.Leads)
		if err != nil {
			t.Fatal(err)
		}
		return c.CachedInfo().NumAckPending == n && c.CachedInfo().NumPending == 0
	})
	i, _ := get[contracts.Incident](r, "incident.leads-auth")
	if !strings.Contains(i.Reason, "FACEBOOK_PAGE_ACCESS_TOKEN") || !i.ResolvedAt.IsZero() || i.Count != 1 {
		t.Errorf("%+v", i)
	}
	if tries := len(r.meta.Calls()) - calls; tries > n {
		t.Errorf("asked %d times with a token that is refused", tries)
	}
	r.meta.SetFault("")
	await(t, "all texts", func() bool { return len(r.keysOf("sms.welcome.")) == n+1 })
	await(t, "the incident's end", func() bool { return len(r.open()) == 0 })
	for key, record := range r.bucket() {
		if strings.HasPrefix(key, "lead.") && strings.Contains(record, "pending") || strings.HasPrefix(key, "incident.") && key != "incident.leads-auth" {
			t.Errorf("%s: %s", key, record)
		}
	}
	for _, secret := range []string{token, secret, meta.Proof(token, secret), "Zoé", "3363998"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

// TestWhatHappensToAPendingLead: others may change its record meanwhile.
func TestWhatHappensToAPendingLead(t *testing.T) {
	t.Parallel()
	buyer := client("cus_1", "", "", contracts.CustomerClient)
	buyer.Refs = []contracts.LeadRef{{ID: "1", Kind: "metadata", At: morning, Event: "evt_1"}}
	for name, c := range map[string]struct {
		meanwhile func(*state.Tx) error
		status    contracts.LeadStatus
		texts     int
	}{
		"nothing":                     {func(*state.Tx) error { return nil }, contracts.LeadNew, 1},
		"it became a client":          {func(tx *state.Tx) error { return identity.SetCustomer(tx, buyer) }, contracts.LeadClient, 0},
		"its number opted out":        {func(tx *state.Tx) error { return optOut(tx, mobile[1:], morning) }, contracts.LeadOptedOut, 0},
		"a person deleted the record": {func(tx *state.Tx) error { return tx.Delete("lead.1") }, contracts.LeadNew, 1},
		"its number was welcomed an hour ago": {func(tx *state.Tx) error {
			return tx.Put("contact."+mobile[1:], contracts.Contact{Phone: mobile, Leads: []string{}, Customers: []string{}, Welcomes: []contracts.Welcome{{LeadID: "9", At: morning.Add(-time.Hour)}}})
		}, contracts.LeadNew, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			l := person("1", "Zoé", mobile, "", morning)
			r.meta.AddLead(l)
			r.meta.SetFault(meta.HTML503)
			_ = r.deliver(l, 1, time.Minute)
			if lead, ok := get[contracts.Lead](r, "lead.1"); !ok || !lead.Pending {
				t.Fatalf("%+v", lead)
			}
			r.update(c.meanwhile)
			_ = r.deliver(l, 2, time.Minute)
			r.meta.SetFault("")
			if err := r.deliver(l, 3, time.Minute); err != nil {
				t.Error(err)
			}
			lead, _ := get[contracts.Lead](r, "lead.1")
			if lead.Pending || lead.Status != c.status || lead.Phone != mobile || len(r.keysOf("sms.")) != c.texts {
				t.Errorf("%+v, texts %v", lead, r.keysOf("sms."))
			}
			before := r.sequence()
			_ = r.deliver(l, 1, time.Hour)
			if n := r.sequence() - before; n != 0 {
				t.Errorf("a replay wrote %d messages", n)
			}
		})
	}
}
