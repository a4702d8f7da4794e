// Package blacklist tells Twilio of opt-outs, through its consent API. Our own list is
// what keeps texts back; this is a second net under it, which needs an account that has
// access to that API.
//
// A number is told first: once Twilio has it on its list, the confirmation would be
// refused.
package blacklist

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/twilio/twilio-go/client"
	accounts "github.com/twilio/twilio-go/rest/accounts/v1"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
	"leadpipe/internal/twilio"
)

const (
	// mostItems is what Twilio takes in one call.
	// https://www.twilio.com/docs/messaging/features/consent-api
	mostItems = 25
	// confirmationPause is how often a confirmation that is under way is looked at.
	confirmationPause = 2 * time.Second
	// confirmationLag is how long after a STOP its confirmation may still be unseen: both
	// are one commit, but a replica that answers may not have all of it yet.
	confirmationLag = time.Minute
)

// Options are what the consumer needs. Store, Twilio, and one of From and Service are
// required.
type Options struct {
	Store   *state.Store
	Twilio  *twilio.Client
	From    string           // the sender that people opt out of
	Service string           // or the messaging service
	Now     func() time.Time // default time.Now; when Twilio took an opt-out
}

// A Blacklist is the consumer. It is safe for concurrent use.
type Blacklist struct{ o Options }

// New checks the options.
func New(o Options) (*Blacklist, error) {
	if o.Store == nil || o.Twilio == nil || o.From == "" && o.Service == "" {
		return nil, errors.New("blacklist: store, twilio, or a sender is missing")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Blacklist{o}, nil
}

// Handle takes changes of optout.* records. nil: Twilio has the opt-out, and the record
// says so, or there is nothing to tell. Permanent: Twilio refused the number; ours
// holds. Blocked: it refuses the account.
func (b *Blacklist) Handle(ctx context.Context, msgs []contracts.Message) []error {
	errs := make([]error, len(msgs))
	var due []int // of msgs
	optouts := make([]contracts.OptOut, len(msgs))
	for i, m := range msgs {
		if len(m.Data) == 0 {
			continue // deleted: an opt-in is for Twilio and the person to settle
		}
		if slices.ContainsFunc(msgs[i+1:], func(later contracts.Message) bool { return later.Subject == m.Subject }) {
			continue // a newer revision of the record is here too
		}
		if err := json.Unmarshal(m.Data, &optouts[i]); err != nil {
			errs[i] = outcome.Permanentf(outcome.Malformed, "the record of an opt-out can't be read")
			continue
		}
		if !optouts[i].ProviderBlockedAt.IsZero() {
			continue
		}
		// An older revision that comes again knows less than the record does by now.
		if _, err := b.o.Store.Get(ctx, contracts.KeyOfSubject(m.Subject), &optouts[i]); err != nil {
			errs[i] = err
			continue
		}
		if !optouts[i].ProviderBlockedAt.IsZero() {
			continue
		}
		// The key is what counts: a record written by hand may leave out the number.
		optouts[i].Phone = "+" + strings.TrimPrefix(contracts.KeyOfSubject(m.Subject), contracts.KeyOptOut(""))
		if errs[i] = b.confirmed(ctx, optouts[i], m.Time); errs[i] == nil {
			due = append(due, i)
		}
	}
	for len(due) > 0 {
		n := min(len(due), mostItems)
		if err := b.tell(ctx, due[:n], optouts, errs); err != nil {
			for _, i := range due[:n] {
				errs[i] = err
			}
			if outcome.Of(err).Kind == outcome.KindBlocked {
				for _, i := range due[n:] {
					errs[i] = err
				}
				break
			}
		}
		due = due[n:]
	}
	return errs
}

// confirmed is nil when the number's confirmation is no longer under way. stored is when
// the bucket took the opt-out.
func (b *Blacklist) confirmed(ctx context.Context, o contracts.OptOut, stored time.Time) error {
	if !o.ConfirmedAt.IsZero() {
		return nil
	}
	var sms contracts.SMS
	key := contracts.KeySMS(contracts.SMSOptOutConfirmation, strings.TrimPrefix(o.Phone, "+"))
	ok, err := b.o.Store.Get(ctx, key, &sms)
	if err != nil {
		return err
	}
	unseen := !ok && o.Source == contracts.OptOutBySMS && b.o.Now().Sub(stored) < confirmationLag
	if unseen || ok && (sms.Status == contracts.SMSQueued || sms.Status == contracts.SMSSending) {
		return outcome.NotYet(confirmationPause)
	}
	return nil
}

// An item is one opt-out as the consent API takes it.
type item struct {
	ContactID     string `json:"contact_id"`
	CorrelationID string `json:"correlation_id"`
	SenderID      string `json:"sender_id"`
	Status        string `json:"status"`
	Source        string `json:"source"`
	DateOfConsent string `json:"date_of_consent,omitempty"`
}

// A result is what Twilio says of one item.
type result struct {
	CorrelationID string `json:"correlation_id"`
	ErrorCode     int    `json:"error_code"`
}

// tell makes one call and records what Twilio took. An error concerns all of it.
func (b *Blacklist) tell(ctx context.Context, due []int, optouts []contracts.OptOut, errs []error) error {
	items := make([]any, len(due))
	ids := make([]string, len(due))
	for n, i := range due {
		it := b.item(optouts[i])
		items[n], ids[n] = it, it.CorrelationID
	}
	call := b.o.Twilio.Call(ctx, nil)
	got, err := accounts.NewApiServiceWithClient(call.Base()).
		CreateBulkConsents(new(accounts.CreateBulkConsentsParams).SetItems(items))
	if err != nil {
		return judge(err, call.Status())
	}
	codes, err := codesOf(got)
	if err != nil {
		return outcome.Temporary(outcome.Malformed, err)
	}
	var taken []int
	for n, i := range due {
		code, told := codes[ids[n]]
		switch {
		case !told:
			errs[i] = outcome.Temporary(outcome.Malformed, errors.New("twilio's answer leaves out an opt-out"))
		case code != 0:
			errs[i] = outcome.Permanentf(outcome.Refused, "twilio does not take an opt-out: error %d (https://www.twilio.com/docs/api/errors/%[1]d); our own list holds", code)
		default:
			taken = append(taken, i)
		}
	}
	now := b.o.Now().UTC().Truncate(time.Millisecond)
	for n, err := range b.o.Store.Fold(ctx, len(taken), func(tx *state.Tx, n int) error {
		key := contracts.KeyOptOut(strings.TrimPrefix(optouts[taken[n]].Phone, "+"))
		o, ok, err := state.Get[contracts.OptOut](tx, key)
		if err != nil || !ok || !o.ProviderBlockedAt.IsZero() {
			return err
		}
		o.ProviderBlockedAt = now
		return tx.Put(key, o)
	}, nil) {
		errs[taken[n]] = err
	}
	return nil
}

func (b *Blacklist) item(o contracts.OptOut) item {
	// The same opt-out has the same id: Twilio takes it again without harm.
	sum := sha256.Sum256([]byte(o.Phone + o.OptedOutAt.UTC().Format(time.RFC3339Nano)))
	it := item{
		ContactID: o.Phone, CorrelationID: hex.EncodeToString(sum[:16]), SenderID: b.o.From,
		Status: "opt-out", Source: "opt-out-message",
	}
	if b.o.Service != "" {
		it.SenderID = b.o.Service
	}
	if o.Source != contracts.OptOutBySMS {
		it.Source = "others"
	}
	if !o.OptedOutAt.IsZero() {
		it.DateOfConsent = o.OptedOutAt.UTC().Format(time.RFC3339)
	}
	return it
}

// codesOf reads the error codes by correlation id out of what twilio-go leaves untyped.
func codesOf(got *accounts.AccountsV1BulkConsents) (map[string]int, error) {
	if got == nil || got.Items == nil {
		return nil, errors.New("twilio's answer has no items")
	}
	raw, err := json.Marshal(*got.Items)
	if err != nil {
		return nil, fmt.Errorf("reading twilio's answer: %w", err)
	}
	var results []result
	if err := json.Unmarshal(raw, &results); err != nil {
		return nil, errors.New("twilio's answer has no list of items")
	}
	codes := make(map[string]int, len(results))
	for _, r := range results {
		codes[r.CorrelationID] = r.ErrorCode
	}
	return codes, nil
}

// judge sorts every way in which a call can fail. Telling twice does no harm, so that
// whatever is not Twilio's final word is tried again.
func judge(err error, status int) error {
	code := 0
	var rest *client.TwilioRestError
	if errors.As(err, &rest) {
		code = rest.Code
		if status == 0 {
			status = rest.Status // twilio-go refuses some credentials by itself
		}
	}
	// What Twilio or the network say may hold a number.
	public := fmt.Errorf("twilio answered %d, error %d", status, code)
	switch {
	case status == 0:
		return outcome.Temporary(outcome.Unavailable, errors.New("twilio did not answer"))
	case status == http.StatusTooManyRequests:
		return outcome.Temporary(outcome.RateLimited, public)
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound,
		code == 21222, code == 21224:
		// Not our account, or not one with access to this API.
		return outcome.Blocked(outcome.Auth, public)
	case status >= 400 && status < 500:
		return outcome.Permanent(outcome.Refused, public)
	}
	return outcome.Temporary(outcome.Unavailable, public)
}
