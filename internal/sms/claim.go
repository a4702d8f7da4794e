package sms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"regexp"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/delivery"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/phone"
	"leadpipe/internal/state"
)

const (
	// mostResults is how many results one commit takes.
	mostResults = 200
	// linger is how long the first result waits for others to share its commit.
	linger = 5 * time.Millisecond
	// refusedPause is when a text is due again that was refused for a fault of ours.
	refusedPause = time.Second
	// untilDecided is how often a welcome asks whether a person has decided about an
	// unclear answer of its number. The decision changes the contact, not the text.
	untilDecided = 30 * time.Second
	firstPause   = time.Second
	lastPause    = 5 * time.Minute
)

var e164 = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// claim commits the claims of some texts and tells each job what is to be done.
func (s *Sender) claim(ctx context.Context, jobs []*job, errs []error) {
	s.o.point("due")
	began, now := time.Now(), s.now()
	token := rand.Text()
	seeds := make([]state.Seed, len(jobs))
	for i, j := range jobs {
		seeds[i] = state.Seed{Key: j.key, Revision: j.msg.Sequence, Data: j.msg.Data}
		j.latest = began.Add(s.o.Lease - 2*s.o.Twilio.Timeout())
	}
	results := s.o.Store.Fold(ctx, len(jobs), func(tx *state.Tx, i int) error {
		return s.decide(tx, jobs[i], token, now)
	}, nil, seeds...)
	for i, j := range jobs {
		if results[i] != nil { // perhaps claimed, perhaps not: the lease will tell
			j.plan, errs[j.index] = done, results[i]
		}
		if j.plan == done && results[i] == nil && j.sms.Status != "" { // ended without a call
			s.ended.WithLabelValues(string(j.sms.Kind), string(j.sms.Status)).Inc()
			s.log(ctx, j, string(j.sms.Status), nil)
		}
	}
}

// decide claims a text, or ends it. It runs again after a conflict, so that it sets
// everything of the job anew.
func (s *Sender) decide(tx *state.Tx, j *job, token string, now time.Time) error {
	j.plan, j.sms, j.search, j.instead = done, contracts.SMS{}, time.Time{}, ""
	if !e164.MatchString(j.was.To) {
		return outcome.Permanentf(outcome.Malformed, "the recipient of a text is not a number in E.164")
	}
	contactKey, optoutKey := contracts.KeyContact(j.digits()), contracts.KeyOptOut(j.digits())
	if err := tx.Need(j.key, contactKey, optoutKey); err != nil {
		return err
	}
	r, ok, err := state.Get[contracts.SMS](tx, j.key)
	if err != nil {
		return err
	}
	if !ok || !same(r, j.was) {
		return nil // it has moved on, and that has a message of its own
	}
	contact, known, err := state.Get[contracts.Contact](tx, contactKey)
	if err != nil {
		return err
	}
	optedOut, err := consent.Out(tx, j.digits())
	if err != nil {
		return err
	}
	optedOut = optedOut && r.Kind != contracts.SMSOptOutConfirmation
	x := s.expiry(r, now)
	switch {
	case optedOut:
		j.instead = suppressed
	case !x.IsZero() && !now.Before(x):
		j.instead = expired
	}
	if j.instead == "" && r.Kind == contracts.SMSWelcome && r.Status == contracts.SMSQueued && consent.Unclear(contact) {
		return outcome.NotYet(untilDecided) // a person has yet to say whether it may go
	}
	switch {
	case r.Status == contracts.SMSSending: // its sender died, or got no clear answer
		j.search = r.ClaimedAt
	case j.instead != "":
		j.sms = end(r, j.instead, "")
		if j.instead == expired {
			if err := delivery.Expired(tx, r, j.msg); err != nil {
				return err
			}
		}
		return tx.Put(j.key, j.sms)
	case r.ClaimedAt.IsZero() && now.Sub(r.QueuedAt) > s.o.Old:
		j.search = r.QueuedAt
	}

	r.Status, r.Claim, r.LeaseUntil, r.NotBefore, r.Error = contracts.SMSSending, token, now.Add(s.o.Lease), time.Time{}, ""
	r.Attempts++
	if r.ClaimedAt.IsZero() {
		r.ClaimedAt = now
	}
	if !known {
		contact = contracts.Contact{Phone: r.To, Leads: []string{}, Customers: []string{}}
	}
	// Written by every opt-out too: of a claim and an opt-out one comes first.
	contact.LastSMSAt = now
	if err := tx.Put(j.key, r); err != nil {
		return err
	}
	if err := tx.Put(contactKey, contact); err != nil {
		return err
	}
	j.plan, j.sms, j.contact = call, r, contact
	return nil
}

// same says whether a record still is where the message has it.
func same(a, b contracts.SMS) bool {
	return a.Status == b.Status && a.Claim == b.Claim && a.Attempts == b.Attempts && a.NotBefore.Equal(b.NotBefore)
}

// end gives a record its last status.
func end(r contracts.SMS, v verdict, reason string) contracts.SMS {
	r = release(r)
	r.Status, r.Error = contracts.SMSStatus(v), reason
	return r
}

func release(r contracts.SMS) contracts.SMS {
	r.Claim, r.LeaseUntil, r.NotBefore = "", time.Time{}, time.Time{}
	return r
}

// record commits results as they come, several at a time.
func (s *Sender) record(ctx context.Context, results <-chan *job, errs []error) {
	for j := range results {
		jobs := []*job{j}
		t := time.NewTimer(linger)
	gather:
		for len(jobs) < mostResults {
			select {
			case j, ok := <-results:
				if !ok {
					break gather
				}
				jobs = append(jobs, j)
			case <-t.C:
				break gather
			}
		}
		t.Stop()
		now := s.now()
		failed := s.o.Store.Fold(ctx, len(jobs), func(tx *state.Tx, i int) error {
			return s.settle(tx, jobs[i], now)
		}, nil)
		for i, j := range jobs {
			a := j.answer
			errs[j.index] = failed[i]
			if failed[i] == nil && a.err != nil && outcome.Of(a.err).Kind == outcome.KindBlocked {
				errs[j.index] = a.err
			}
			s.ended.WithLabelValues(string(j.sms.Kind), string(a.verdict)).Inc()
			s.log(ctx, j, string(a.verdict), a.err)
		}
	}
}

// settle records what a claim came to.
func (s *Sender) settle(tx *state.Tx, j *job, now time.Time) error {
	a := j.answer
	switch a.verdict {
	case sent: // a fact, whoever holds the claim now
		if a.news.At.IsZero() {
			a.news.At = now
		}
		if a.found { // the attempt that the claim had counted was none
			r, ok, err := state.Get[contracts.SMS](tx, j.key)
			if err != nil {
				return err
			}
			if ok && r.Claim == j.sms.Claim {
				r.Attempts--
				if err := tx.Put(j.key, r); err != nil {
					return err
				}
			}
		}
		if err := closeCountry(tx, j.sms.To, now); err != nil {
			return err
		}
		return delivery.Record(tx, j.key, a.news)
	case unknown: // the record stays as it is until its lease is over
		return nil
	}
	r, ok, err := state.Get[contracts.SMS](tx, j.key)
	if err != nil {
		return err
	}
	if !ok || r.Status != contracts.SMSSending || r.Claim != j.sms.Claim {
		return nil // webhooks have told more already
	}
	reason := ""
	if a.code != 0 {
		reason = fmt.Sprint(a.code)
	}
	switch a.verdict {
	case later:
		r = release(r)
		r.Status, r.Error, r.NotBefore = contracts.SMSQueued, string(outcome.Of(a.err).Reason), now.Add(pause(r.Attempts))
	case held, refused:
		r = uncalled(release(r))
		r.Status, r.Error, r.NotBefore = contracts.SMSQueued, string(a.verdict), now.Add(refusedPause)
		var hold *holdError
		if errors.As(a.err, &hold) {
			r.NotBefore = now.Add(hold.again)
		}
	case suppressed, expired:
		if a.verdict == expired {
			if err := delivery.Expired(tx, r, j.msg); err != nil {
				return err
			}
		}
		r = uncalled(end(r, a.verdict, ""))
	case unsubscribed:
		r = end(r, suppressed, reason)
		if err := s.unsubscribed(tx, j, now); err != nil {
			return err
		}
	case never:
		r = end(r, never, reason)
		if err := raiseCountry(tx, j, a, now); err != nil {
			return err
		}
	}
	return tx.Put(j.key, r)
}

// unsubscribed enters that Twilio knows of an opt-out that we do not; to the
// confirmation of one it says that the number has been told.
func (s *Sender) unsubscribed(tx *state.Tx, j *job, now time.Time) error {
	if j.sms.Kind == contracts.SMSOptOutConfirmation {
		return delivery.Confirm(tx, j.digits(), now)
	}
	return consent.Enter(tx, j.sms.To, contracts.Word{At: now, Kind: contracts.WordOptOut, Source: contracts.OptOutByProvider}, true)
}

// uncalled takes back the attempt that a claim had counted.
func uncalled(r contracts.SMS) contracts.SMS {
	if r.Attempts--; r.Attempts == 0 {
		r.ClaimedAt = time.Time{}
	}
	return r
}

// raiseCountry tells that texts to a country can't be sent, one incident a country and
// code: a wrong number is nobody's fault, and thirty of one country are worth a look.
func raiseCountry(tx *state.Tx, j *job, a answer, now time.Time) error {
	country := phone.Number(j.sms.To).Country()
	return incident.Raise(tx, incident.Report{
		ID: fmt.Sprintf("%s%s-%d", countryID, country, a.code), Consumer: contracts.SMSSender, Reason: outcome.Refused,
		Severity: contracts.SeverityWarning, At: now,
		Message: contracts.Message{Stream: contracts.StreamCRM, Subject: j.msg.Subject, Sequence: j.msg.Sequence},
		Text:    fmt.Sprintf("texts to numbers of %s were refused, and are failed: %v", country, a.err),
		Action:  fmt.Sprintf("nats kv get %s %s", contracts.Bucket, j.key),
	})
}

const countryID = "sms-country-"

// closeCountry closes the incidents of a country to which a text goes through.
func closeCountry(tx *state.Tx, to string, now time.Time) error {
	prefix := countryID + phone.Number(to).Country() + "-"
	return incident.ResolveAll(tx, func(id string) bool { return strings.HasPrefix(id, prefix) }, now)
}

// pause is how long a text waits after its nth call came to nothing: the ceiling
// doubles, and the pause is drawn between half of it and it.
func pause(n int) time.Duration {
	ceiling := min(lastPause, firstPause<<min(max(n-1, 0), 10))
	return ceiling/2 + mathrand.N(ceiling/2)
}

// now is the time as records hold it.
func (s *Sender) now() time.Time { return s.o.Now().UTC().Truncate(time.Millisecond) }

// log tells what a text came to, without its number and without what it says.
func (s *Sender) log(ctx context.Context, j *job, result string, err error) {
	level := slog.LevelInfo
	n, encoding := Segments(j.sms.Body)
	attrs := []slog.Attr{
		slog.String("sms", contracts.PublicSubject(j.msg.Subject)), slog.String("result", result),
		slog.Int("attempts", j.sms.Attempts), slog.Int("segments", n), slog.String("encoding", encoding),
	}
	if err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("reason", err.Error()))
	}
	s.o.Log.LogAttrs(ctx, level, "text", attrs...)
}
