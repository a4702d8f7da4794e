package consumersd

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/billing"
	"leadpipe/internal/daemon"
	"leadpipe/internal/leads"
	"leadpipe/internal/outcome"
	"leadpipe/internal/sheets"
	"leadpipe/internal/twilio"
	"leadpipe/streams"
)

// check is the command `consumers check`.
func check(args []string, out, errOut io.Writer) int {
	return daemon.CheckMain("consumers", args, out, errOut, func(cfg Config) []func(context.Context) []daemon.Finding {
		return []func(context.Context) []daemon.Finding{
			cfg.checkNATS, cfg.checkStripe, cfg.checkMeta, cfg.checkTwilio, cfg.checkSheets,
			func(ctx context.Context) []daemon.Finding { return daemon.CheckPublicURL(ctx, cfg.PublicURL) },
			cfg.checkTexts,
		}
	})
}

// rights are what the consumers do on the server.
var rights = []daemon.Right{
	{Subject: "$KV.crm.index.check", For: "write records"},
	{Subject: "$JS.API.STREAM.INFO.WEBHOOKS", For: "look at WEBHOOKS"},
	{Subject: "$JS.API.STREAM.INFO.KV_crm", For: "look at KV_crm"},
	{Subject: "$JS.API.STREAM.CREATE.WEBHOOKS", For: "create WEBHOOKS"},
	{Subject: "$JS.API.STREAM.CREATE.KV_crm", For: "create KV_crm"},
	{Subject: "$JS.API.CONSUMER.CREATE.WEBHOOKS.check", For: "create durables of WEBHOOKS"},
	{Subject: "$JS.API.CONSUMER.CREATE.KV_crm.check", For: "create durables of KV_crm"},
	{Subject: "$JS.API.CONSUMER.INFO.WEBHOOKS.check", For: "look at durables of WEBHOOKS"},
	{Subject: "$JS.API.CONSUMER.INFO.KV_crm.check", For: "look at durables of KV_crm"},
	{Subject: "$JS.API.CONSUMER.MSG.NEXT.WEBHOOKS.check", For: "fetch webhooks"},
	{Subject: "$JS.API.CONSUMER.MSG.NEXT.KV_crm.check", For: "fetch changes"},
	{Subject: "$JS.API.DIRECT.GET.KV_crm", For: "read records"},
	{Subject: "$JS.API.STREAM.MSG.GET.WEBHOOKS", For: "look for a STOP before a text is sent"},
	{Subject: "$JS.ACK.check", For: "acknowledge"},
}

func (c Config) checkNATS(ctx context.Context) []daemon.Finding {
	urls := c.URL
	if urls == "" {
		urls = defaultURL
	}
	out := c.CheckNATS(ctx, "consumers", c.ConsumersPassword, urls, rights, func(ctx context.Context, js jetstream.JetStream) []daemon.Finding {
		drifts, err := streams.Diff(ctx, js, c.Replicas, c.undeclared()...)
		return daemon.CheckStreams("all", "see the server's log: it may have no leader or no JetStream", drifts, err)
	})
	return append(out, c.CheckPasswords(urls)...)
}

func (c Config) checkStripe(ctx context.Context) []daemon.Finding {
	if c.StripeKey == "" {
		return []daemon.Finding{daemon.NotOn("optional: set STRIPE_API_KEY", "Stripe: without a key what two events of one second leave open is settled by their ids")}
	}
	s, err := billing.NewStripe(string(c.StripeKey), c.StripeURL)
	if err == nil {
		err = s.Check(ctx)
	}
	switch {
	case err != nil && outcome.Of(err).Reason == outcome.Refused:
		return []daemon.Finding{daemon.Bad("give the key the permission Subscriptions: read", "Stripe: %v", err)}
	case err != nil && outcome.Of(err).Reason == outcome.Auth:
		return []daemon.Finding{daemon.Bad("set STRIPE_API_KEY to a key that has not been rolled or deleted", "Stripe: %v", err)}
	case err != nil:
		return []daemon.Finding{daemon.Bad("try again; check STRIPE_API_URL where it is set", "Stripe: %v", err)}
	case strings.Contains(string(c.StripeKey), "_test_"):
		return []daemon.Finding{daemon.Good("Stripe: the key may read subscriptions, of the test mode")}
	}
	return []daemon.Finding{daemon.Good("Stripe: the key may read subscriptions")}
}

// renewBefore is how long before its end a token has to be renewed.
const renewBefore = 7 * 24 * time.Hour

func (c Config) checkMeta(ctx context.Context) []daemon.Finding {
	if c.FacebookToken == "" {
		return []daemon.Finding{daemon.NotOn("set FACEBOOK_PAGE_ACCESS_TOKEN", "Meta: leads are not read")}
	}
	const renew = "make a new token of a system user, with leads_retrieval, and set FACEBOOK_PAGE_ACCESS_TOKEN"
	g, err := leads.NewGraph(leads.GraphOptions{URL: c.GraphURL, Token: string(c.FacebookToken), AppSecret: c.FacebookSecrets.First()})
	if err != nil {
		return []daemon.Finding{daemon.Bad("correct it", "Meta: %v", err)}
	}
	defer g.Close()
	t, err := g.Check(ctx, c.FacebookSecrets.First())
	switch reason := outcome.Of(err).Reason; {
	case err != nil && (reason == outcome.Auth || reason == outcome.Refused):
		return []daemon.Finding{daemon.Bad(renew+"; or set the first FACEBOOK_APP_SECRET to that of the token's app", "Meta: %v", err)}
	case err != nil:
		return []daemon.Finding{daemon.Bad("try again; check FACEBOOK_GRAPH_URL", "Meta: %v", err)}
	case !t.Valid:
		return []daemon.Finding{daemon.Bad(renew, "Meta: the token is no longer valid")}
	}
	var out []daemon.Finding
	switch until := t.Expires.Format("2006-01-02"); {
	case !t.Expires.IsZero() && time.Until(t.Expires) < renewBefore:
		out = append(out, daemon.Bad(renew, "Meta: the token ends on %s", until))
	case !t.Expires.IsZero():
		out = append(out, daemon.Good("Meta: the token is valid until %s", until))
	case t.Known:
		out = append(out, daemon.Good("Meta: the token is valid and does not expire"))
	default:
		out = append(out, daemon.NotOn("set FACEBOOK_APP_SECRET", "Meta: the token is valid; until when and whether it may read leads is told with the app's secret alone"))
	}
	switch {
	case len(t.Pages) == 0:
		out = append(out, daemon.Bad("give the system user a role on the page, then make a new token", "Meta: the token is for no page"))
	default:
		out = append(out, daemon.Good("Meta: for the pages %s", strings.Join(t.Pages, ", ")))
	}
	if t.Known && !t.ReadsLeads {
		out = append(out, daemon.Bad("grant leads_retrieval and make a new token", "Meta: the token may not read leads"))
	} else if t.Known {
		out = append(out, daemon.Good("Meta: the token may read leads"))
	}
	return out
}

func (c Config) checkSheets(ctx context.Context) []daemon.Finding {
	if why, off := c.missing()[contracts.Sheets]; off {
		return []daemon.Finding{daemon.NotOn("set GOOGLE_SHEETS_ID and GOOGLE_APPLICATION_CREDENTIALS", "Google: %s", why)}
	}
	l, err := sheets.LookAt(ctx, sheets.Options{SpreadsheetID: c.SheetsID, CredentialsFile: c.SheetsCredentials, URL: c.SheetsURL})
	const share = "share it, as editor, with the address in the service account's file"
	switch reason := outcome.Of(err).Reason; {
	case err != nil && reason == outcome.Unknown:
		return []daemon.Finding{daemon.Bad("set GOOGLE_SHEETS_ID to the part of its address between /d/ and /edit", "Google: there is no such spreadsheet")}
	case err != nil && reason == outcome.Auth:
		return []daemon.Finding{daemon.Bad(share+"; or make a new key for that account", "Google: %v", err)}
	case err != nil && reason == outcome.Malformed:
		return []daemon.Finding{daemon.Bad("download the service account's JSON key again", "Google: GOOGLE_APPLICATION_CREDENTIALS: %v", err)}
	case err != nil:
		return []daemon.Finding{daemon.Bad("try again; check GOOGLE_SHEETS_URL where it is set", "Google: %v", err)}
	}
	zone := "its time zone is " + l.TimeZone
	if _, err := time.LoadLocation(l.TimeZone); err != nil || l.TimeZone == "" {
		return []daemon.Finding{daemon.Bad("choose one in File, Settings", "Google: the spreadsheet %q has a time zone that is not known: %q", l.Title, l.TimeZone)}
	}
	switch {
	case l.Unsure:
		return []daemon.Finding{daemon.Good("Google: the spreadsheet %q can be read, %s; whether it may be edited shows in the first write", l.Title, zone)}
	case !l.Editable:
		return []daemon.Finding{daemon.Bad(share, "Google: the spreadsheet %q may be read and not edited", l.Title)}
	}
	return []daemon.Finding{daemon.Good("Google: the spreadsheet %q may be edited, %s", l.Title, zone)}
}

// checkTexts says what is fine for some and not for all.
func (c Config) checkTexts(context.Context) []daemon.Finding {
	if _, off := c.missing()[contracts.SMSSender]; off {
		return nil
	}
	var out []daemon.Finding
	if c.QuietHours == "" {
		out = append(out, daemon.NotOn(`set SMS_QUIET_HOURS, e.g. "22:00-08:00 Europe/Paris sundays holidays"`, "texts: welcomes leave at night too"))
	} else {
		out = append(out, daemon.Good("texts: no welcome leaves during %s", c.QuietHours))
	}
	if c.Company == "" && !alphanumeric(c.TwilioFrom) {
		out = append(out, daemon.NotOn("set COMPANY_NAME", "texts: nothing names who writes but the words of each text"))
	}
	return out
}

const (
	longestCode    = 6 // digits of a short code
	twilioAPI      = "https://api.twilio.com/2010-04-01/Accounts/"
	twilioServices = "https://messaging.twilio.com/v1/Services/"
)

// checkTwilio asks for the account and the sender.
// https://www.twilio.com/docs/iam/api/account
// https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource
// https://www.twilio.com/docs/messaging/api/service-resource
func (c Config) checkTwilio(ctx context.Context) []daemon.Finding {
	if why, off := c.missing()[contracts.SMSSender]; off {
		return []daemon.Finding{daemon.NotOn("set TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and a sender", "Twilio: no texts are sent: %s", why)}
	}
	client, err := twilio.New(twilio.Options{Account: c.TwilioAccount, Token: c.TwilioTokens.First(), BaseURL: c.TwilioURL, Timeout: 10 * time.Second, Conns: 1})
	if err != nil {
		return []daemon.Finding{daemon.Bad("correct it", "Twilio: %v", err)}
	}
	defer client.Close()
	var account struct {
		Status string `json:"status"`
		Type   string `json:"type"`
		Name   string `json:"friendly_name"`
	}
	status, err := client.Get(ctx, twilioAPI+c.TwilioAccount+".json", &account)
	switch {
	case err != nil:
		return []daemon.Finding{daemon.Bad("try again; check TWILIO_API_URL where it is set", "Twilio: %v", err)}
	case status == 401 || status == 403:
		return []daemon.Finding{daemon.Bad("set TWILIO_ACCOUNT_SID and, first, TWILIO_AUTH_TOKEN to those of the console", "Twilio: account and token are refused (status %d)", status)}
	case status != 200:
		return []daemon.Finding{daemon.Bad("check TWILIO_ACCOUNT_SID", "Twilio: asked for the account, it answers %d", status)}
	case account.Status != "active":
		return []daemon.Finding{daemon.Bad("see the console: its balance, or a review", "Twilio: the account is %s", account.Status)}
	}
	out := []daemon.Finding{daemon.Good("Twilio: the account is active")}
	if strings.EqualFold(account.Type, "trial") {
		out[0] = daemon.NotOn("upgrade it", "Twilio: a trial account, which texts only numbers that were verified")
	}
	return append(out, c.checkSender(ctx, client))
}

func (c Config) checkSender(ctx context.Context, client *twilio.Client) daemon.Finding {
	inbound := ""
	switch {
	case c.TwilioService != "":
		var service struct {
			Inbound string `json:"inbound_request_url"`
			Numbers bool   `json:"use_inbound_webhook_on_number"`
		}
		status, err := client.Get(ctx, twilioServices+c.TwilioService, &service)
		switch {
		case err != nil:
			return daemon.Bad("try again", "Twilio: %v", err)
		case status == 404:
			return daemon.Bad("set TWILIO_MESSAGING_SERVICE_SID to a service of this account", "Twilio: the account has no messaging service %s", c.TwilioService)
		case status != 200:
			return daemon.Bad("try again", "Twilio: asked for the messaging service, it answers %d", status)
		}
		if !service.Numbers {
			inbound = service.Inbound
		}
	case alphanumeric(c.TwilioFrom):
		return daemon.Good("Twilio: texts come from %s, which can't be answered", c.TwilioFrom)
	default:
		type number struct {
			URL          string `json:"sms_url"`
			Capabilities *struct {
				SMS bool `json:"sms"`
			} `json:"capabilities"`
		}
		var list struct {
			Numbers []number `json:"incoming_phone_numbers"`
			Codes   []number `json:"short_codes"`
		}
		where := "/IncomingPhoneNumbers.json?" + url.Values{"PhoneNumber": {c.TwilioFrom}}.Encode()
		if len(c.TwilioFrom) <= longestCode {
			where = "/SMS/ShortCodes.json?" + url.Values{"ShortCode": {c.TwilioFrom}}.Encode()
		}
		status, err := client.Get(ctx, twilioAPI+c.TwilioAccount+where, &list)
		found := append(list.Numbers, list.Codes...)
		switch {
		case err != nil:
			return daemon.Bad("try again", "Twilio: %v", err)
		case status != 200:
			return daemon.Bad("try again", "Twilio: asked for the sender, it answers %d", status)
		case len(found) == 0:
			return daemon.Bad("set TWILIO_FROM to a number of this account, with its country's prefix", "Twilio: the account has no number such as TWILIO_FROM")
		case found[0].Capabilities != nil && !found[0].Capabilities.SMS:
			return daemon.Bad("choose a number that can send texts", "Twilio: the number of TWILIO_FROM can't send texts")
		}
		inbound = found[0].URL
	}
	want := strings.TrimSuffix(c.PublicURL, "/") + "/api/webhooks/sms"
	got, _, _ := strings.Cut(inbound, "#") // retries are asked for behind it
	if got != "" && got != want {
		return daemon.Bad(fmt.Sprintf("set it to %s, or PUBLIC_URL to what is before /api/webhooks/sms", want), "Twilio: texts that come in, STOP among them, go to another address")
	}
	return daemon.Good("Twilio: the sender exists")
}
