package sms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twilio/twilio-go/client"
	api "github.com/twilio/twilio-go/rest/api/v2010"

	"leadpipe/contracts"
	"leadpipe/internal/delivery"
	"leadpipe/internal/outcome"
	"leadpipe/internal/twilio"
)

// A verdict is what a call to send came to, and decides what may be done next.
type verdict string

const (
	sent         verdict = "sent"         // Twilio has the text
	unknown      verdict = "unknown"      // perhaps; its message list will tell
	later        verdict = "later"        // surely not sent, and worth another try
	never        verdict = "failed"       // surely not sent, and no try will help
	unsubscribed verdict = "unsubscribed" // surely not sent: Twilio knows of an opt-out
	refused      verdict = "refused"      // surely not sent: our account or sender is at fault
	held         verdict = "held"         // the gate did not open; Twilio was not asked
	suppressed   verdict = "suppressed"   // not sent: the number opted out
	expired      verdict = "expired"      // not sent: too old
)

// An answer is what became of a call.
type answer struct {
	verdict verdict
	news    delivery.News // of sent
	code    int           // Twilio's error code, or 0
	err     error         // of those that Twilio did not take
	found   bool          // in Twilio's list: this claim made no call
	perhaps bool          // of refused: perhaps it is only this recipient that the sender can't reach
}

// judge sorts every way in which a call can end. left says whether any of the request
// may have reached Twilio, status is that of its answer, or 0.
func judge(err error, left bool, status int) answer {
	if err == nil {
		return answer{verdict: sent}
	}
	var hold *holdError
	if errors.As(err, &hold) && !left {
		return answer{verdict: held, err: hold}
	}
	code := 0
	var rest *client.TwilioRestError
	if errors.As(err, &rest) {
		code = rest.Code
		if status == 0 {
			status = rest.Status // twilio-go refuses some credentials by itself
		}
	}
	err = public(err, status, code)
	switch {
	case moments[code]:
		return answer{verdict: later, code: code, err: outcome.Temporary(outcome.RateLimited, err)}
	case accounts[code] != "":
		return answer{verdict: refused, code: code, err: outcome.Blocked(accounts[code], err)}
	case senders[code]:
		return answer{verdict: refused, code: code, err: outcome.Blocked(outcome.Refused, err), perhaps: true}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return answer{verdict: refused, code: code, err: outcome.Blocked(outcome.Auth, err)}
	case status == http.StatusTooManyRequests:
		return answer{verdict: later, code: code, err: outcome.Temporary(outcome.RateLimited, err)}
	case code == delivery.Unsubscribed:
		return answer{verdict: unsubscribed, code: code, err: outcome.Permanent(outcome.Refused, err)}
	case status >= 400 && status < 500 && code != 0:
		return answer{verdict: never, code: code, err: outcome.Permanent(outcome.Refused, err)}
	case !left:
		return answer{verdict: later, code: code, err: outcome.Temporary(outcome.Unavailable, err)}
	}
	// No answer, one that is not Twilio's, or a 5xx: the text may well be on its way.
	return answer{verdict: unknown, code: code, err: outcome.Temporary(outcome.Unavailable, err)}
}

// public says what happened without what Twilio or the network said: a number or a
// text may be in it.
func public(err error, status, code int) error {
	switch {
	case code != 0:
		return fmt.Errorf("twilio answered %d, error %d (https://www.twilio.com/docs/api/errors/%d)", status, code, code)
	case status != 0:
		return fmt.Errorf("twilio answered %d with something unreadable", status)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errors.New("twilio did not answer in time")
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL
	}
	return fmt.Errorf("calling twilio: %w", err)
}

const (
	// retries asks Twilio to bring a status again that it could not deliver: without it
	// a single 503 loses it. It is no part of what Twilio signs.
	// https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
	retries = "#rc=3&rp=ct,rt,5xx"
	// A text waits for its turn at Twilio between a second and ten hours; less than a
	// few minutes would lose texts to a carrier that is slow.
	// https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource
	longestValidity  = 36000
	shortestValidity = 300
)

// messages is the part of Twilio's API that sends and lists.
type messages struct {
	client   *twilio.Client
	from     string
	service  string
	callback string // URL of delivery statuses, without our id; empty: none are asked for
	now      func() time.Time
}

// send asks Twilio to send a text, if gate opens.
func (m *messages) send(ctx context.Context, t contracts.SMS, gate func(context.Context) error) answer {
	p := new(api.CreateMessageParams).SetTo(t.To).SetBody(t.Body)
	if m.service != "" {
		p.SetMessagingServiceSid(m.service)
	} else {
		p.SetFrom(m.from)
	}
	if m.callback != "" {
		p.SetStatusCallback(m.callback + url.QueryEscape(string(t.Kind)+"."+t.Cause) + retries)
	}
	if !t.ExpiresAt.IsZero() { // Twilio's queue must not carry it beyond
		p.SetValidityPeriod(int(min(longestValidity, max(shortestValidity, t.ExpiresAt.Sub(m.now())/time.Second))))
	}
	call := m.client.Call(ctx, gate)
	got, err := api.NewApiServiceWithClient(call.Base()).CreateMessage(p)
	if err == nil && (got.Sid == nil || *got.Sid == "") {
		err = errors.New("the answer names no text")
	}
	a := judge(err, call.Left(), call.Status())
	if a.verdict == sent {
		a.news = delivery.News{SID: *got.Sid, Status: "queued"}
		a.news.At, _ = time.Parse(time.RFC1123Z, value(got.DateCreated)) // zero: the caller's clock will do
	}
	return a
}

// listed is how many of a number's texts one page of the list has, and mostPages how many
// pages are looked through.
const (
	listed    = 200
	mostPages = 10
)

// find looks for a text that we may have sent, not before since, in Twilio's list. It
// asks by recipient alone: a filter by date looks at the date of sending, which a text
// that Twilio has only just taken does not have. What went by RCS is listed under an
// address of its own. taken says whether another record holds a text.
func (m *messages) find(ctx context.Context, t contracts.SMS, since time.Time, taken func(sid string) (bool, error)) (delivery.News, bool, error) {
	for _, to := range []string{t.To, "rcs:" + t.To} {
		n, found, err := m.findAt(ctx, to, t.Body, since, taken)
		if err != nil || found {
			return n, found, err
		}
	}
	return delivery.News{}, false, nil
}

func (m *messages) findAt(ctx context.Context, to, body string, since time.Time, taken func(sid string) (bool, error)) (delivery.News, bool, error) {
	token := ""
	for page := range mostPages {
		texts, next, a := m.list(ctx, to, token, page)
		if a.err != nil {
			return delivery.News{}, false, a.err
		}
		for _, t := range texts {
			at, err := time.Parse(time.RFC1123Z, value(t.DateCreated))
			if err != nil {
				continue
			}
			if at.Before(since) {
				return delivery.News{}, false, nil // the newest come first
			}
			if value(t.Direction) == "inbound" || value(t.Direction) == "outbound-reply" || !sameText(t, body) {
				continue
			}
			if other, err := taken(value(t.Sid)); err != nil {
				return delivery.News{}, false, err
			} else if other {
				continue
			}
			return newsOf(t, at), true, nil
		}
		if token = next; token == "" {
			break
		}
	}
	return delivery.News{}, false, nil
}

// trial is what Twilio puts before the texts of a trial account.
// https://www.twilio.com/docs/usage/tutorials/how-to-use-your-free-trial-account
const trial = "Sent from your Twilio trial account - "

// sameText says whether a text of the list may be ours. Where message bodies are redacted
// the number of its segments has to do.
// https://www.twilio.com/docs/messaging/features/message-redaction
func sameText(t api.ApiV2010Message, body string) bool {
	got := strings.TrimSpace(strings.TrimPrefix(value(t.Body), trial))
	if strings.Trim(got, "*•█ ") != "" {
		return got == strings.TrimSpace(body)
	}
	n, _ := Segments(body)
	withTrial, _ := Segments(trial + body)
	segments := value(t.NumSegments)
	return segments == "0" || segments == strconv.Itoa(n) || segments == strconv.Itoa(withTrial)
}

func newsOf(t api.ApiV2010Message, at time.Time) delivery.News {
	n := delivery.News{SID: value(t.Sid), Status: value(t.Status), At: at.UTC()}
	if t.ErrorCode != nil {
		n.Code = *t.ErrorCode
	}
	return n
}

// list gives a page of a number's texts, newest first, and the token of the next page;
// the answer has an error unless it is "sent".
func (m *messages) list(ctx context.Context, to, token string, page int) (texts []api.ApiV2010Message, next string, a answer) {
	call := m.client.Call(ctx, nil)
	number := ""
	if token != "" {
		number = strconv.Itoa(page)
	}
	got, err := api.NewApiServiceWithClient(call.Base()).
		PageMessage(new(api.ListMessageParams).SetTo(to).SetPageSize(listed), token, number)
	if err != nil {
		return nil, "", judge(err, call.Left(), call.Status())
	}
	if u, err := url.Parse(value(got.NextPageUri)); err == nil {
		next = u.Query().Get("PageToken")
	}
	return got.Messages, next, answer{verdict: sent}
}

// fetch gives what has become of a text that Twilio has.
func (m *messages) fetch(ctx context.Context, sid string) (delivery.News, answer) {
	call := m.client.Call(ctx, nil)
	got, err := api.NewApiServiceWithClient(call.Base()).FetchMessage(sid, new(api.FetchMessageParams))
	if err != nil {
		return delivery.News{}, judge(err, call.Left(), call.Status())
	}
	at, _ := time.Parse(time.RFC1123Z, value(got.DateCreated))
	return newsOf(*got, at), answer{verdict: sent}
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
