/** Webhook senders that the server knows. */
export interface Sender {
  value: string
  text: string
  /** Hint for the secret field. */
  secret: string
}

export const senders: Sender[] = [
  {
    value: 'gitlab',
    text: 'GitLab',
    secret: 'The secret token, or the signing token (whsec_…), of the webhook in GitLab.',
  },
  { value: 'gitea', text: 'Gitea, Forgejo, Gogs', secret: 'The secret of the webhook.' },
  { value: 'github', text: 'GitHub, only this trigger', secret: 'The secret of the webhook in GitHub.' },
  { value: 'bitbucket', text: 'Bitbucket', secret: 'The secret of the webhook.' },
  { value: 'slack', text: 'Slack', secret: 'The signing secret of the app, under Basic Information.' },
  { value: 'discord', text: 'Discord', secret: 'The public key of the application, 64 hexadecimal digits.' },
  { value: 'stripe', text: 'Stripe', secret: 'The signing secret of the endpoint, whsec_…' },
  { value: 'svix', text: 'Svix (Clerk, Resend and others)', secret: 'The signing secret of the endpoint, whsec_…' },
  {
    value: 'pagerduty',
    text: 'PagerDuty',
    secret: 'The secret that PagerDuty shows once when the subscription is created.',
  },
  { value: 'linear', text: 'Linear', secret: 'The signing secret on the webhook’s page.' },
  { value: 'jira', text: 'Jira', secret: 'The secret of the webhook.' },
  { value: 'sentry', text: 'Sentry', secret: 'The client secret of the integration.' },
  { value: 'shopify', text: 'Shopify', secret: 'The client secret of the app, or the key shown under Notifications.' },
  { value: 'twilio', text: 'Twilio', secret: 'The auth token of the account.' },
  { value: 'standard', text: 'Standard Webhooks', secret: 'The secret of the sender, whsec_…' },
  {
    value: 'hmac',
    text: 'Other sender with a signature',
    secret: 'The signing key of the sender; for Ed25519 its public key.',
  },
  {
    value: 'bearer',
    text: 'Other sender with a bearer token',
    secret: 'Sent in the Authorization header, as password, or as ?token= in the URL.',
  },
  { value: 'unsigned', text: 'Unsigned, only from this machine', secret: '' },
]
