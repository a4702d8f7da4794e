package sms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
}

// faults of the account, its sender or its configuration: every text would meet them.
// https://www.twilio.com/docs/api/errors
var faults = map[int]outcome.Reason{
	20003: outcome.Auth,    // wrong credentials
	20005: outcome.Auth,    // account suspended
	20404: outcome.Auth,    // no such account
	21222: outcome.Auth,    // not an account SID
	21224: outcome.Auth,    // not a token
	21212: outcome.Refused, // sender is not valid
	21603: outcome.Refused, // no sender
	21606: outcome.Refused, // sender can't text
	21609: outcome.Refused, // the status callback's URL
	21659: outcome.Refused, // sender is not Twilio's
	21660: outcome.Refused, // sender is somebody else's
	21661: outcome.Refused, // sender can't text
	21701: outcome.Refused, // no such messaging service
	21703: outcome.Refused, // messaging service without a sender
	21704: outcome.Refused,
	21705: outcome.Refused,
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
	case faults[code] != "":
		return answer{verdict: refused, code: code, err: outcome.Blocked(faults[code], err)}
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

// messages is the part of Twilio's API that sends and lists.
type messages struct {
	client   *twilio.Client
	from     string
	service  string
	callback string // URL of delivery statuses, without our id; empty: none are asked for
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
		p.SetStatusCallback(m.callback + url.QueryEscape(string(t.Kind)+"."+t.Cause))
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

// find looks for a text that we may have sent, not before since, in Twilio's list. It
// asks by recipient alone: a filter by date looks at the date of sending, which a text
// that Twilio has only just taken does not have.
func (m *messages) find(ctx context.Context, to, body string, since time.Time) (delivery.News, bool, error) {
	texts, a := m.list(ctx, to)
	if a.err != nil {
		return delivery.News{}, false, a.err
	}
	for _, t := range texts {
		at, err := time.Parse(time.RFC1123Z, value(t.DateCreated))
		if err != nil || at.Before(since) || value(t.Direction) == "inbound" ||
			value(t.Direction) == "outbound-reply" || strings.TrimSpace(value(t.Body)) != strings.TrimSpace(body) {
			continue
		}
		n := delivery.News{SID: value(t.Sid), Status: value(t.Status), At: at.UTC()}
		if t.ErrorCode != nil {
			n.Code = *t.ErrorCode
		}
		return n, true, nil
	}
	return delivery.News{}, false, nil
}

// list gives a number's latest texts; the answer has an error unless it is "sent".
func (m *messages) list(ctx context.Context, to string) ([]api.ApiV2010Message, answer) {
	call := m.client.Call(ctx, nil)
	page, err := api.NewApiServiceWithClient(call.Base()).
		PageMessage(new(api.ListMessageParams).SetTo(to).SetPageSize(listed), "", "")
	if err != nil {
		return nil, judge(err, call.Left(), call.Status())
	}
	return page.Messages, answer{verdict: sent}
}

// listed is how many of a number's latest texts are looked through.
const listed = 200

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
